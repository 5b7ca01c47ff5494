/* Sensors and actuators. This file drives nothing: give your own to `firmware/build.py --user-io` to run without a host. */
#include "pe_board.h"
#include "pe_protocol.h"

/* Called first at boot, when no policy and so no safe output is known: set up pins so that actuators rest. Returns whether
 * read and write below do their work; arming for free running is refused if not. */
int pe_board_open_driver(void) { return 0; }

/* Fill observation[n] in the contract's order and fixed point and return 0; do not wait. Return PE_STEP_MISSED when nothing
 * new came, PE_STEP_INVALID when a sensor failed. */
uint32_t pe_board_read(int32_t *observation)
{
    (void)observation;
    return PE_STEP_MISSED;
}

/* Drive the actuators with action[m]. Called with the safe output at boot, on disarm and on every fault, the last from the
 * fault handler: use no interrupts and do not wait. */
void pe_board_write(const int32_t *action) { (void)action; }
