/* Sizes of a convolution, as they lie behind its head. */
#ifndef PE_CONV_H
#define PE_CONV_H

#include <stdint.h>

typedef struct {
    uint16_t height, width, channels, filters, out_height, out_width, spare;
    int16_t zero_in;
    uint8_t kernel_height, kernel_width, down, right, top, left;
    uint16_t last;
} pe_geometry;

#endif
