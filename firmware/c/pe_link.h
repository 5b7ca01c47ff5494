/* The link: the device's end of firmware/shared/protocol.py. One per program. */
#ifndef PE_LINK_H
#define PE_LINK_H

#include <stdint.h>

enum { PE_VERSION_MAJOR = 0, PE_VERSION_MINOR = 1, PE_VERSION_PATCH = 0 };

/* Start the device and wait for a frame. Call once at boot. */
void pe_link_start(void);

/* Take a byte from the line. May answer, reset the chip or leave for the service mode. */
void pe_link_byte(uint8_t byte);

#endif
