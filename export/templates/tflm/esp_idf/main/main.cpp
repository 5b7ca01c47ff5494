// @title@ on an ESP32 with ESP-IDF: idf.py set-target esp32 build flash monitor, in the folder above.
#include <cstdio>

#include "@name@_network.h"
#include "esp_timer.h"
#include "freertos/FreeRTOS.h"
#include "freertos/task.h"

static @name@_policy policy;
static TaskHandle_t loop;

static void wake(void *) { xTaskNotifyGive(loop); }

extern "C" void app_main(void)
{
    const int problem = @name@_network_open();
    @name@_reset(&policy, @name@_network_run, nullptr);
    const unsigned wrong = problem ? 0 : static_cast<unsigned>(@name@_self_test(&policy));
    if (problem || wrong) {
        std::printf("the network does not open (%d) or test vector %u differs: nothing is driven\n", problem, wrong);
        return;
    }
    loop = xTaskGetCurrentTaskHandle();
    esp_timer_create_args_t how = {};
    how.callback = wake;
    how.name = "policy";
    esp_timer_handle_t timer;
    ESP_ERROR_CHECK(esp_timer_create(&how, &timer));
    ESP_ERROR_CHECK(esp_timer_start_periodic(timer, @NAME@_PERIOD_US));
    for (;;) {
        int32_t observation[@NAME@_OBSERVATIONS] = {0}, raw[@NAME@_ACTIONS], applied[@NAME@_ACTIONS];
        ulTaskNotifyTake(pdTRUE, portMAX_DELAY);
        const uint32_t step = PE_STEP_MISSED;  // your sensors fill observation, in fixed point; then step is 0
        @name@_tick(&policy, step, observation, raw, applied);
        (void)applied;  // your actuators
    }
}
