// @title@ on an Arduino: install this folder as a library, and Chirale_TensorFlowLite, which brings TFLite-Micro.
#include <Chirale_TensorFlowLite.h>
#include <@name@_network.h>

static @name@_policy policy;
static uint32_t next;
static bool ready;

void setup()
{
    Serial.begin(115200);
    const int problem = @name@_network_open();
    @name@_reset(&policy, @name@_network_run, nullptr);
    ready = !problem && @name@_self_test(&policy) == 0;
    if (!ready)
        Serial.println("the network does not open or a test vector differs: nothing is driven");
    next = micros();
}

void loop()
{
    if (!ready || static_cast<int32_t>(micros() - next) < 0)
        return;
    next += @NAME@_PERIOD_US;
    int32_t observation[@NAME@_OBSERVATIONS] = {0}, raw[@NAME@_ACTIONS], applied[@NAME@_ACTIONS];
    const uint32_t step = PE_STEP_MISSED;  // your sensors fill observation, in fixed point; then step is 0
    @name@_tick(&policy, step, observation, raw, applied);
    (void)applied;  // your actuators
}
