"""The folder c/ as the library of four build systems: built and run by CMake; the examples compiled against the interfaces they use."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from puffer_edge import __version__
from tests.export.test_c import STRICT, network, source, write

INTERFACES = {
    "esp_err.h": "typedef int esp_err_t;\n#define ESP_ERROR_CHECK(x) ((void)(x))\n",
    "freertos/FreeRTOS.h": """#include <stdint.h>
typedef uint32_t TickType_t; typedef int BaseType_t;
#define portMAX_DELAY 0xffffffffu
#define pdTRUE 1
""",
    "freertos/task.h": """typedef struct tskTaskControlBlock *TaskHandle_t;
TaskHandle_t xTaskGetCurrentTaskHandle(void); BaseType_t xTaskNotifyGive(TaskHandle_t); uint32_t ulTaskNotifyTake(BaseType_t, TickType_t);
""",
    "esp_timer.h": """#include <stdint.h>
typedef struct esp_timer *esp_timer_handle_t; typedef void (*esp_timer_cb_t)(void *);
typedef struct { esp_timer_cb_t callback; void *arg; int dispatch_method; const char *name; _Bool skip_unhandled_events; } esp_timer_create_args_t;
int esp_timer_create(const esp_timer_create_args_t *, esp_timer_handle_t *); int esp_timer_start_periodic(esp_timer_handle_t, uint64_t);
""",
    "zephyr/kernel.h": """#include <stdint.h>
#include <stddef.h>
struct k_timer { int held; }; typedef struct { int64_t ticks; } k_timeout_t;
#define K_TIMER_DEFINE(name, expiry, stop) struct k_timer name
#define K_USEC(t) ((k_timeout_t){(t)})
void k_timer_start(struct k_timer *, k_timeout_t, k_timeout_t); uint32_t k_timer_status_sync(struct k_timer *);
""",
    "zephyr/sys/printk.h": "void printk(const char *format, ...);\n",
    "Arduino.h": """#include <stdint.h>
extern "C" uint32_t micros(void);
struct HardwareSerial { void begin(unsigned long); void print(const char *); void println(const char *); void println(long); };
extern HardwareSerial Serial;
""",
}
"""What the examples use of other people's interfaces, as their headers declare it: enough to compile, not to link or run."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("bundle")
    held = network("gru", "int8")
    (root / "vectors.bin").write_bytes(held.vectors.pack())
    return write(held, root)


@pytest.mark.toolchain("cmake")
def test_cmake_builds_tests_and_installs_it(folder: Path, tmp_path: Path) -> None:
    for command in (
        ["cmake", "-S", folder, "-B", tmp_path / "build", "-DCMAKE_C_FLAGS=-Wall -Wextra -Werror"],
        ["cmake", "--build", tmp_path / "build"],
        ["ctest", "--test-dir", tmp_path / "build", "--output-on-failure"],
        ["cmake", "--install", tmp_path / "build", "--prefix", tmp_path / "installed"],
    ):
        finished = subprocess.run(command, capture_output=True, text=True, check=False)
        assert finished.returncode == 0, finished.stdout + finished.stderr
        if command[0] == "ctest":
            assert "2 tests passed" in finished.stdout or "0 tests failed out of 2" in finished.stdout
    (tmp_path / "user").mkdir()
    (tmp_path / "user" / "main.c").write_text('#include "policy_network.h"\nint main(void) { return (int)network_start(); }\n')
    (tmp_path / "user" / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.16)\nproject(user C)\nfind_package(puffer_edge REQUIRED)\n"
        "add_executable(user main.c)\ntarget_link_libraries(user puffer_edge::puffer_edge)\n"
    )
    where = f"-DCMAKE_PREFIX_PATH={tmp_path / 'installed'}"
    subprocess.run(["cmake", "-S", tmp_path / "user", "-B", tmp_path / "user" / "b", where], check=True, capture_output=True)
    subprocess.run(["cmake", "--build", tmp_path / "user" / "b"], check=True, capture_output=True)
    assert subprocess.run([tmp_path / "user" / "b" / "user"], check=False).returncode == 0


@pytest.mark.toolchain("cmake")
def test_a_second_policys_folder_joins_the_same_library(folder: Path, tmp_path: Path) -> None:
    other = write(source("pendulum"), tmp_path / "other")
    (tmp_path / "CMakeLists.txt").write_text(
        f"cmake_minimum_required(VERSION 3.16)\nproject(both C)\nadd_subdirectory({folder} a)\nadd_subdirectory({other} b)\n"
        "add_executable(both main.c)\ntarget_link_libraries(both puffer_edge)\n"
    )
    calls = "int main(void) { return (int)(network_start() | pendulum_start()); }\n"
    (tmp_path / "main.c").write_text(f'#include "policy_network.h"\n#include "policy_pendulum.h"\n{calls}')
    assert "error" not in cmake("-S", tmp_path, "-B", tmp_path / "build")
    cmake("--build", tmp_path / "build")
    assert subprocess.run([tmp_path / "build" / "both"], check=False).returncode == 0
    text = (other / "CMakeLists.txt").read_text()
    (other / "CMakeLists.txt").write_text(text.replace(f"VERSION {__version__} ", "VERSION 99.0 "))
    refused = subprocess.run(["cmake", "-S", tmp_path, "-B", tmp_path / "again"], capture_output=True, text=True, check=False)
    assert refused.returncode != 0 and f"two policies of puffer-edge {__version__} and 99.0" in refused.stderr


ESP_IDF = """set(ESP_PLATFORM 1)
macro(idf_component_register)
  message("REGISTERED ${ARGN}")
  return()
endmacro()
"""
"""The first of ESP-IDF's two readings: a script, in which registering ends the file and nothing is built."""

ZEPHYR = """cmake_minimum_required(VERSION 3.20)
project(zephyr C)
add_library(zephyr_interface INTERFACE)
function(zephyr_library_named name)
  add_library(${name} STATIC)
  target_link_libraries(${name} PRIVATE zephyr_interface)
  set(ZEPHYR_CURRENT_LIBRARY ${name} PARENT_SCOPE)
endfunction()
function(zephyr_library_sources)
  target_sources(${ZEPHYR_CURRENT_LIBRARY} PRIVATE ${ARGV})
endfunction()
function(zephyr_library_compile_options)
  target_compile_options(${ZEPHYR_CURRENT_LIBRARY} PRIVATE ${ARGV})
endfunction()
function(zephyr_include_directories)
  target_include_directories(zephyr_interface INTERFACE ${ARGV})
endfunction()
set(CONFIG_PUFFER_EDGE y)
"""
"""What the module uses of Zephyr's CMake functions, by their documented meaning."""


@pytest.mark.toolchain("cmake")
def test_esp_idf_reads_one_component(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "read.cmake").write_text(f"{ESP_IDF}include({folder / 'CMakeLists.txt'})\n")
    assert "REGISTERED SRC_DIRS;src;INCLUDE_DIRS;src" in cmake("-P", tmp_path / "read.cmake")
    (tmp_path / "read.cmake").write_text(f"{ESP_IDF}include({folder / 'examples/esp_idf/main/CMakeLists.txt'})\n")
    assert "REGISTERED SRCS;main.c" in cmake("-P", tmp_path / "read.cmake")


@pytest.mark.toolchain("cmake")
def test_the_zephyr_module_builds_its_library(folder: Path, tmp_path: Path) -> None:
    module = dict(line.split(": ") for line in (folder / "zephyr" / "module.yml").read_text().split("\n") if ": " in line)
    assert (folder / module["  kconfig"]).read_text().startswith("config PUFFER_EDGE\n\tbool ")
    (tmp_path / "main.c").write_text('#include "policy_network.h"\nint main(void) { return (int)network_start(); }\n')
    (tmp_path / "CMakeLists.txt").write_text(
        f"{ZEPHYR}add_subdirectory({folder / module['  cmake']} module)\nadd_executable(app main.c)\n"
        "target_link_libraries(app puffer_edge zephyr_interface)\n"
    )
    cmake("-S", tmp_path, "-B", tmp_path / "build")
    cmake("--build", tmp_path / "build")
    assert subprocess.run([tmp_path / "build" / "app"], check=False).returncode == 0


def cmake(*arguments: str | Path) -> str:
    """What it says, when it succeeds."""
    finished = subprocess.run(["cmake", *arguments], capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout + finished.stderr


@pytest.mark.parametrize("example", ["esp_idf/main/main.c", "zephyr/src/main.c"])
def test_c_examples_compile_against_the_interfaces_they_use(folder: Path, example: str, tmp_path: Path) -> None:
    interfaces(tmp_path)
    flags = [flag for flag in STRICT if flag not in ("-pedantic", "-std=c99")]
    command = ["cc", "-std=c11", *flags, "-fsyntax-only", f"-I{tmp_path}", f"-I{folder / 'src'}", folder / "examples" / example]
    subprocess.run(command, check=True)


def test_the_sketch_compiles_against_the_interface_it_uses(folder: Path, tmp_path: Path) -> None:
    interfaces(tmp_path)
    sketch = folder / "examples" / "arduino" / "arduino.ino"
    flags = ["-std=c++11", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", f"-I{tmp_path}", f"-I{folder / 'src'}", "-x", "c++"]
    subprocess.run(["c++", *flags, "-include", "Arduino.h", sketch], check=True)


def interfaces(root: Path) -> None:
    for name, text in INTERFACES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def test_every_build_system_finds_its_file_and_no_word_is_left_to_fill(folder: Path) -> None:
    names = {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file() and "build" not in path.parts}
    for wanted in ("CMakeLists.txt", "idf_component.yml", "library.properties", "zephyr/module.yml", "zephyr/CMakeLists.txt", "zephyr/Kconfig"):
        assert wanted in names
    assert not [name for name, text in names.items() if re.search(r"@\w+@", text)]
    properties = dict(line.split("=", 1) for line in names["library.properties"].splitlines())
    assert {"name", "version", "author", "maintainer", "sentence", "category", "architectures", "includes"} <= set(properties)
    assert properties["includes"] in {Path(name).name for name in names if name.startswith("src/")}
    assert "idf_component_register(SRC_DIRS src INCLUDE_DIRS src)" in names["CMakeLists.txt"]
    assert "kconfig: zephyr/Kconfig" in names["zephyr/module.yml"] and "CONFIG_PUFFER_EDGE=y" in names["examples/zephyr/prj.conf"]


def test_the_licence_travels_with_the_sources(folder: Path) -> None:
    assert (folder / "LICENSE").read_bytes() == (Path(__file__).parents[2] / "LICENSE").read_bytes()
