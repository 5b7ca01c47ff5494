// @title@: the network in TFLite-Micro, with the operators it uses and no others; printed by puffer-edge, do not edit.
#include "@name@_network.h"

#include <cstring>

#include "@name@_model.h"
#include "tensorflow/lite/micro/micro_interpreter.h"
#include "tensorflow/lite/micro/micro_mutable_op_resolver.h"
#include "tensorflow/lite/schema/schema_generated.h"

namespace {

alignas(16) uint8_t arena[@NAME@_ARENA_BYTES];
tflite::MicroInterpreter *interpreter = nullptr;

}  // namespace

extern "C" int @name@_network_open(void)
{
    static tflite::MicroMutableOpResolver<@operator_count@> resolver;
    if (interpreter)
        return @NAME@_OPEN;
@add_operators@
    static tflite::MicroInterpreter made(tflite::GetModel(@name@_model), resolver, arena, sizeof arena);
    if (made.AllocateTensors() != kTfLiteOk)
        return @NAME@_NO_MEMORY;
    if (made.input(0)->bytes != @NAME@_INPUTS * sizeof(@name@_value) || made.output(0)->bytes != @NAME@_OUTPUTS * sizeof(int16_t))
        return @NAME@_WRONG_SIZES;
    interpreter = &made;
    return @NAME@_OPEN;
}

extern "C" int @name@_network_run(void *, int fresh, const @name@_value *x, int16_t *head)
{
    if (!interpreter || (fresh && interpreter->Reset() != kTfLiteOk))
        return 1;
    std::memcpy(interpreter->input(0)->data.data, x, @NAME@_INPUTS * sizeof(@name@_value));
    if (interpreter->Invoke() != kTfLiteOk)
        return 1;
    std::memcpy(head, interpreter->output(0)->data.data, @NAME@_OUTPUTS * sizeof(int16_t));
    return 0;
}
