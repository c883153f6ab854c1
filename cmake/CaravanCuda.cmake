# CARAVAN_CUDA: OFF, ON, or "emulated": the CUDA backend's own kernels on the processor, for its tests on machines without
# a GPU.
set(CARAVAN_CUDA OFF CACHE STRING "CUDA: OFF, ON, or emulated (kernels run on the processor, for tests)")
set_property(CACHE CARAVAN_CUDA PROPERTY STRINGS OFF ON emulated)
if(NOT CARAVAN_CUDA)
  return()
endif()

if(NOT CARAVAN_CUDA STREQUAL "emulated")
  if(NOT CMAKE_CUDA_ARCHITECTURES)
    # The last without -real: code for later GPUs is made from its PTX by the driver.
    set(CMAKE_CUDA_ARCHITECTURES 80-real 90a-real 100)
  endif()
  enable_language(CUDA)
  if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION)
    # CMake 3.25 does not know that later compilers do.
    set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)
    set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION -std=c++20)
  endif()
  set(CMAKE_CUDA_STANDARD 20)
  set(CMAKE_CUDA_STANDARD_REQUIRED ON)
  # Device lambdas are not used; templates with host lambdas as arguments are.
  string(APPEND CMAKE_CUDA_FLAGS " --expt-relaxed-constexpr")
endif()
find_package(CUDAToolkit 12.8 REQUIRED)

# What the device files are compiled with: room sources list it among LIBRARIES.
add_library(caravan_cuda_runtime INTERFACE)
if(CARAVAN_CUDA STREQUAL "emulated")
  target_compile_definitions(caravan_cuda_runtime INTERFACE CARAVAN_CUDA_EMULATED)
  target_include_directories(caravan_cuda_runtime SYSTEM INTERFACE ${CUDAToolkit_INCLUDE_DIRS})
else()
  # The runtime is linked in; cuBLASLt and cuDNN are loaded when the first op asks for them, so that the program starts on
  # machines that have neither.
  target_link_libraries(caravan_cuda_runtime INTERFACE CUDA::cudart_static)
endif()
