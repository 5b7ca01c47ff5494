/* @title@: the network as a .tflite file in memory; printed by puffer-edge, do not edit. */
#ifndef PE_TFLM_@NAME@_MODEL_H
#define PE_TFLM_@NAME@_MODEL_H

#ifdef __cplusplus
extern "C" {
#endif

#define @NAME@_MODEL_BYTES @model_bytes@u

/* Aligned to 16 bytes, as its tensors are. */
extern const unsigned char @name@_model[@NAME@_MODEL_BYTES];

#ifdef __cplusplus
}
#endif

#endif
