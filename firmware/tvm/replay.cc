/* Replays a bundle's vectors on the library that TVM compiled, with TVM's runtime and no Python:
 *
 *     replay LIBRARY VECTORS OBSERVATIONS ACTIONS MEMORY OUTPUTS
 *
 * The README beside it has the line that builds it, and this policy's numbers. */
#include <tvm/ffi/container/array.h>
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/extra/module.h>
#include <tvm/ffi/function.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <vector>

namespace ffi = tvm::ffi;

namespace {

constexpr int32_t STEP_RESET = 1, POLICY_RAN = 16; /* of a vector's step flags, and of its outcome */
constexpr size_t ALIGNMENT = 64;                   /* what TVM's kernels expect */

struct Memory {
    void AllocData(DLTensor *tensor)
    {
        tensor->data = std::aligned_alloc(ALIGNMENT, (ffi::GetDataSize(*tensor) / ALIGNMENT + 1) * ALIGNMENT);
    }
    void FreeData(DLTensor *tensor) { std::free(tensor->data); }
};

ffi::Tensor row_of(int width, uint8_t bits)
{
    return ffi::Tensor::FromNDAlloc(Memory(), ffi::Shape({1, width}), DLDataType{kDLInt, bits, 1}, DLDevice{kDLCPU, 0});
}

ffi::Function load(const char *library)
{
    ffi::Module machine = ffi::Module::LoadFromFile(library)->GetFunction("vm_load_executable").value()().cast<ffi::Module>();
    machine->GetFunction("vm_initialization").value()(static_cast<int>(kDLCPU), 0, 2 /* pooled allocator */);
    return machine->GetFunction("main").value();
}

int replay(const char *library, std::FILE *vectors, int n, int m, int memory, int outputs)
{
    const ffi::Function run = load(library);
    const ffi::Tensor observation = row_of(n, 32), before = row_of(memory, 16);
    std::vector<int32_t> row(static_cast<size_t>(3 + n + 2 * m)); /* docs/image.md */
    int ran = 0, differing = 0;
    while (std::fread(row.data(), 4, row.size(), vectors) == row.size()) {
        if (row[0] & STEP_RESET)
            std::memset(before.data_ptr(), 0, 2 * static_cast<size_t>(memory));
        if (!(row[static_cast<size_t>(1 + n + 2 * m)] & POLICY_RAN))
            continue;
        std::memcpy(observation.data_ptr(), &row[1], 4 * static_cast<size_t>(n));
        const ffi::Any result = memory > 0 ? run(observation, before) : run(observation);
        ffi::Array<ffi::Tensor> all;
        if (outputs == 1)
            all.push_back(result.cast<ffi::Tensor>());
        else
            all = result.cast<ffi::Array<ffi::Tensor>>();
        differing += std::memcmp(all[0].data_ptr(), &row[static_cast<size_t>(1 + n)], 4 * static_cast<size_t>(m)) != 0;
        if (memory > 0)
            std::memcpy(before.data_ptr(), all[outputs - 1].data_ptr(), 2 * static_cast<size_t>(memory));
        ++ran;
    }
    std::printf("{\"steps\": %d, \"mismatches\": %d}\n", ran, differing);
    return differing != 0 || ran == 0;
}

} // namespace

int main(int count, char **arguments)
{
    if (count != 7) {
        std::fprintf(stderr, "usage: replay LIBRARY VECTORS OBSERVATIONS ACTIONS MEMORY OUTPUTS\n");
        return 2;
    }
    std::FILE *vectors = std::fopen(arguments[2], "rb");
    if (vectors == nullptr) {
        std::perror(arguments[2]);
        return 2;
    }
    int status = 2;
    try {
        const auto number = [&](int k) { return std::atoi(arguments[k]); };
        status = replay(arguments[1], vectors, number(3), number(4), number(5), number(6));
    } catch (const std::exception &error) {
        std::fprintf(stderr, "%s\n", error.what());
    }
    std::fclose(vectors);
    return status;
}
