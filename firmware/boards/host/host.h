/* The parts of the host board that its programs share. */
#ifndef HOST_H
#define HOST_H

#include <stdint.h>

/* Read the slots from files in a folder, or start empty and never write with a null one. Exits if that fails. */
void host_open(const char *folder);

/* Where the bytes for the line go. Exits the program if it cannot go on. */
extern void (*host_send)(const uint8_t *data, uint32_t bytes);

/* Set by a reset request; whoever runs the loop starts the link again and clears it. */
extern int host_resets;

#endif
