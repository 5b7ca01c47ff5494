/* @title@: the network in TFLite-Micro; printed by puffer-edge, do not edit. */
#ifndef PE_TFLM_@NAME@_NETWORK_H
#define PE_TFLM_@NAME@_NETWORK_H

#include "@name@_policy.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Memory for TFLite-Micro: the smallest in which its interpreter opened and ran this model on a 64-bit computer, with the reference
 * kernels. A 32-bit chip needs less; kernels of a chip's maker may need more: then define it larger for all files of the build. */
#ifndef @NAME@_ARENA_BYTES
#define @NAME@_ARENA_BYTES @arena@u
#endif

/* What @name@_network_open found wrong. */
enum {
    @NAME@_OPEN,
    @NAME@_NO_OPERATORS, /* an operator could not be registered */
    @NAME@_NO_MEMORY,    /* the arena is too small, or an operator refused the model: TFLite-Micro's log says which */
    @NAME@_WRONG_SIZES   /* input or output is not what the model was printed for */
};

/* Make the interpreter; once, before anything else. Returns @NAME@_OPEN or another number of the list. */
int @name@_network_open(void);

/* Run it: give this to @name@_reset, with a null context. */
@name@_network @name@_network_run;

#ifdef __cplusplus
}
#endif

#endif
