/* @title@: the network as a .tflite file in memory; printed by puffer-edge, do not edit. */
#include "@name@_model.h"

#if defined(__GNUC__)
__attribute__((aligned(16)))
#endif
const unsigned char @name@_model[@NAME@_MODEL_BYTES] = {
@model@
};
