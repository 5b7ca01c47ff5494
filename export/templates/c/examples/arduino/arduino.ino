// @title@ on an Arduino board: one tick each @period_us@ microseconds.
// Replace the bodies of measure() and drive() by your sensors and actuators.
#include <policy_@name@.h>

static int32_t observation[@NAME@_OBSERVATIONS], raw[@NAME@_ACTIONS], applied[@NAME@_ACTIONS];
static uint32_t due;

// Fill in every channel, in fixed point as policy_@name@.h lists them. Returns 0, @NAME@_STEP_MISSED or @NAME@_STEP_INVALID.
static uint32_t measure(int32_t *channel) {
  (void)channel;
  return @NAME@_STEP_MISSED;
}

// What comes here went through the shield. Nothing else may move an actuator.
static void drive(const int32_t *action) {
  (void)action;
}

void setup() {
  Serial.begin(115200);
  const int32_t problem = @name@_start();
  if (problem != 0) {
    Serial.print("the policy does not start: ");
    Serial.println(problem);
  } else {
    Serial.println("vectors agree");
  }
  due = micros();
}

void loop() {
  if ((int32_t)(micros() - due) < 0) {
    return;
  }
  due += @NAME@_PERIOD_US;
  @name@_tick(measure(observation), observation, raw, applied);  // a policy that did not start gives the safe output
  drive(applied);
}
