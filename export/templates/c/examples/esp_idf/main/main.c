/* @title@ under ESP-IDF: a timer wakes the main task each @period_us@ microseconds.
 * Replace the bodies of measure() and drive() by your sensors and actuators. */
#include <stdio.h>

#include "esp_err.h"
#include "esp_timer.h"
#include "freertos/FreeRTOS.h"
#include "freertos/task.h"

#include "policy_@name@.h"

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

static void wake(void *task)
{
    xTaskNotifyGive((TaskHandle_t)task);
}

void app_main(void)
{
    static int32_t observation[@NAME@_OBSERVATIONS], raw[@NAME@_ACTIONS], applied[@NAME@_ACTIONS];
    const esp_timer_create_args_t timer = {.callback = wake, .arg = xTaskGetCurrentTaskHandle(), .name = "@name@"};
    esp_timer_handle_t handle;
    const int32_t problem = @name@_start();
    if (problem != 0)
        printf("the policy does not start: %d\n", (int)problem);
    else
        printf("vectors agree\n");
    ESP_ERROR_CHECK(esp_timer_create(&timer, &handle));
    ESP_ERROR_CHECK(esp_timer_start_periodic(handle, @NAME@_PERIOD_US));
    for (;;) {
        ulTaskNotifyTake(pdTRUE, portMAX_DELAY);
        @name@_tick(measure(observation), observation, raw, applied); /* a policy that did not start gives the safe output */
        drive(applied);
    }
}
