/* The link: the device's end of firmware/shared/protocol.py, and the loop that runs an armed policy. One per program. */
#ifndef PE_LINK_H
#define PE_LINK_H

#include <stdint.h>

enum { PE_VERSION_MAJOR = 0, PE_VERSION_MINOR = 1, PE_VERSION_PATCH = 0 };

/* Load the policy from the store and write its safe output. Call once at boot. */
void pe_link_start(void);

/* Take a byte from the line. May answer, reset the chip or leave for the service mode. */
void pe_link_byte(uint8_t byte);

/* Run the policy if it is armed for free running and its time has come. Call as often as possible while it returns 1;
 * it returns 0 when only a byte from the line can give it something to do. */
int pe_link_poll(void);

/* Write the safe output, whatever else is broken. For fault handlers. */
void pe_link_fail_safe(void);

#endif
