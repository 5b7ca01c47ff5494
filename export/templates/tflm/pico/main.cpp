// @title@ on a Raspberry Pi Pico with its SDK: cmake -B build -DPICO_SDK_PATH=… -DPICO_TFLMICRO_PATH=… && cmake --build build
#include <cstdio>

#include "@name@_network.h"
#include "pico/stdlib.h"

static @name@_policy policy;

int main()
{
    stdio_init_all();
    const int problem = @name@_network_open();
    @name@_reset(&policy, @name@_network_run, nullptr);
    const unsigned wrong = problem ? 0 : static_cast<unsigned>(@name@_self_test(&policy));
    while (problem || wrong) {
        std::printf("the network does not open (%d) or test vector %u differs: nothing is driven\n", problem, wrong);
        sleep_ms(1000);
    }
    absolute_time_t next = get_absolute_time();
    for (;;) {
        int32_t observation[@NAME@_OBSERVATIONS] = {0}, raw[@NAME@_ACTIONS], applied[@NAME@_ACTIONS];
        next = delayed_by_us(next, @NAME@_PERIOD_US);
        sleep_until(next);
        const uint32_t step = PE_STEP_MISSED;  // your sensors fill observation, in fixed point; then step is 0
        @name@_tick(&policy, step, observation, raw, applied);
        (void)applied;  // your actuators
    }
}
