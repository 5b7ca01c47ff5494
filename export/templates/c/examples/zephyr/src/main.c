/* @title@ under Zephyr: a kernel timer wakes the main thread each @period_us@ microseconds.
 * Replace the bodies of measure() and drive() by your sensors and actuators. */
#include <zephyr/kernel.h>
#include <zephyr/sys/printk.h>

#include "policy_@name@.h"

K_TIMER_DEFINE(period, NULL, NULL);

/* Fill in every channel, in fixed point as policy_@name@.h lists them. Returns 0, @NAME@_STEP_MISSED or @NAME@_STEP_INVALID. */
static uint32_t measure(int32_t *channel)
{
    (void)channel;
    return @NAME@_STEP_MISSED;
}

/* What comes here went through the shield. Nothing else may move an actuator. */
static void drive(const int32_t *action)
{
    (void)action;
}

int main(void)
{
    static int32_t observation[@NAME@_OBSERVATIONS], raw[@NAME@_ACTIONS], applied[@NAME@_ACTIONS];
    const int32_t problem = @name@_start();
    if (problem != 0)
        printk("the policy does not start: %d\n", (int)problem);
    else
        printk("vectors agree\n");
    k_timer_start(&period, K_USEC(@NAME@_PERIOD_US), K_USEC(@NAME@_PERIOD_US));
    for (;;) {
        k_timer_status_sync(&period);
        @name@_tick(measure(observation), observation, raw, applied); /* a policy that did not start gives the safe output */
        drive(applied);
    }
}
