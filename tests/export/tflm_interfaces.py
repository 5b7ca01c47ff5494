"""What the bundle's C++ uses of other people's interfaces, as their headers declare it: enough to compile, not to link or run."""

from __future__ import annotations

from puffer_edge.export import tflm

INTERFACES = {
    "tensorflow/lite/schema/schema_generated.h": "#pragma once\nnamespace tflite { struct Model; const Model *GetModel(const void *buffer); }\n",
    "tensorflow/lite/micro/micro_mutable_op_resolver.h": """#pragma once
typedef enum TfLiteStatus { kTfLiteOk = 0, kTfLiteError = 1 } TfLiteStatus;
namespace tflite {
class MicroOpResolver { public: virtual ~MicroOpResolver() {} };
template <unsigned int tOpCount> class MicroMutableOpResolver : public MicroOpResolver { public: OPERATORS };
}
""".replace("OPERATORS", " ".join(f"TfLiteStatus Add{name}();" for name in tflm.OPERATORS.values())),
    "tensorflow/lite/micro/micro_interpreter.h": """#pragma once
#include <cstddef>
#include <cstdint>
#include "tensorflow/lite/micro/micro_mutable_op_resolver.h"
#include "tensorflow/lite/schema/schema_generated.h"
union TfLitePtrUnion { void *data; };
struct TfLiteTensor { TfLitePtrUnion data; size_t bytes; };
namespace tflite {
class MicroResourceVariables; class MicroProfilerInterface;
class MicroInterpreter {
 public:
  MicroInterpreter(const Model *model, const MicroOpResolver &resolver, uint8_t *arena, size_t size,
                   MicroResourceVariables *variables = nullptr, MicroProfilerInterface *profiler = nullptr, bool preserve = false);
  TfLiteStatus AllocateTensors(); TfLiteStatus Invoke(); TfLiteStatus Reset();
  TfLiteTensor *input(size_t index); TfLiteTensor *output(size_t index);
};
}
""",
    "freertos/FreeRTOS.h": """#pragma once
#include <cstdint>
typedef uint32_t TickType_t; typedef int BaseType_t;
#define portMAX_DELAY 0xffffffffu
#define pdTRUE 1
""",
    "freertos/task.h": """#pragma once
typedef struct tskTaskControlBlock *TaskHandle_t;
extern "C" { TaskHandle_t xTaskGetCurrentTaskHandle(void); BaseType_t xTaskNotifyGive(TaskHandle_t);
uint32_t ulTaskNotifyTake(BaseType_t clear, TickType_t wait); }
""",
    "esp_timer.h": """#pragma once
#include <cstdint>
typedef int esp_err_t;
#define ESP_ERROR_CHECK(x) ((void)(x))
typedef struct esp_timer *esp_timer_handle_t;
typedef void (*esp_timer_cb_t)(void *arg);
typedef struct { esp_timer_cb_t callback; void *arg; int dispatch_method; const char *name; bool skip_unhandled_events; } esp_timer_create_args_t;
extern "C" esp_err_t esp_timer_create(const esp_timer_create_args_t *args, esp_timer_handle_t *out);
extern "C" esp_err_t esp_timer_start_periodic(esp_timer_handle_t timer, uint64_t period_us);
""",
    "pico/stdlib.h": """#pragma once
#include <cstdint>
typedef uint64_t absolute_time_t;
extern "C" { bool stdio_init_all(void); void sleep_ms(uint32_t); absolute_time_t get_absolute_time(void);
absolute_time_t delayed_by_us(const absolute_time_t, uint64_t); void sleep_until(absolute_time_t); }
""",
    "Chirale_TensorFlowLite.h": "#pragma once\n",
    "Arduino.h": """#pragma once
#include <cstdint>
extern "C" uint32_t micros(void);
struct HardwareSerial { void begin(unsigned long baud); void println(const char *text); };
extern HardwareSerial Serial;
""",
}
