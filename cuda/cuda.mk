# The CUDA backend (docs/gpu.md): a shared object of its own, built where nvcc is. NVCC= (empty) leaves it out, NVCC=/path/nvcc
# names another. CUDA_ARCHS: compute capabilities; the newest without a letter is kept as PTX, too, so that later GPUs can run it.
NVCC       ?= $(shell command -v nvcc || command -v /usr/local/cuda/bin/nvcc)
CUDA_ARCHS ?= $(if $(filter gpu-bundle,$(MAKECMDGOALS)),90a,75 80 86 87 89 90a)
CUDA_HOME  := $(patsubst %/bin/nvcc,%,$(NVCC))
# Headers of the libraries: the toolkit's, the system's, those of the Python packages nvidia-* (as cuda/find.h has it). Each library
# is used if its header is there.
CUDA_ROOTS := $(VIRTUAL_ENV) $(CONDA_PREFIX) $(patsubst %/bin,%,$(filter %/bin,$(subst :, ,$(PATH)))) /opt/torch/.venv /usr/local /usr /opt/conda
CUDA_FOLDERS := $(CUDA_HOME)/include /usr/include $(wildcard /usr/include/$(shell uname -m)-linux-gnu) \
    $(wildcard $(foreach r,$(CUDA_ROOTS),$(r)/lib/python3*/site-packages/nvidia/*/include $(r)/lib/python3*/dist-packages/nvidia/*/include))
CUDA_CUDNN := $(if $(NVCC),$(firstword $(wildcard $(CUDA_FOLDERS:%=%/cudnn.h))))
CUDA_LT    := $(if $(NVCC),$(firstword $(wildcard $(CUDA_FOLDERS:%=%/cublasLt.h))))
CUDA_INCLUDE := $(foreach d,$(CUDA_HOME)/include $(filter-out $(CUDA_HOME)/include /usr/include%,$(patsubst %/,%,$(dir $(CUDA_LT) $(CUDA_CUDNN)))),-isystem $(d))
CUDA_PTX   := $(lastword $(filter-out %a %f,$(CUDA_ARCHS)))
CUDA_GENCODE := $(foreach a,$(CUDA_ARCHS),-gencode arch=compute_$(a),code=sm_$(a)) \
    $(foreach a,$(CUDA_PTX),-gencode arch=compute_$(a),code=compute_$(a))

CUDA_KERNEL_SRC := $(sort $(wildcard cuda/*.cu cuda/kernels/*.cu))
CUDA_LIBRARIES  := cuda/libraries.c cuda/find.c cuda/matmul_lt.c $(if $(CUDA_CUDNN),cuda/conv_cudnn.c,cuda/conv_none.c)
CUDA_HOST_SRC   := $(filter-out $(CUDA_LIBRARIES) cuda/conv_cudnn.c cuda/conv_none.c cuda/libraries_none.c,$(sort $(wildcard cuda/*.c)))
CUDA_SRC        := $(CUDA_KERNEL_SRC) $(CUDA_HOST_SRC) $(if $(CUDA_LT),$(CUDA_LIBRARIES),cuda/libraries_none.c)
CUDA_OBJ        := $(CUDA_SRC:%=$(O)/%.o)
CUDA_LINK       := -shared -Wl,--exclude-libs,ALL -Wl,--as-needed -Wl,-z,defs
CUDA_LIB        := $(if $(and $(NVCC),$(filter release,$(KIND))),$(B)/libfovea-cuda.so)

CFLAGS_CUDA  = $(CFLAGS_ALL) -fvisibility=hidden $(if $(CUDA_CUDNN),,-DFV_WITHOUT_CUDNN)
NVFLAGS      = -std=c++17 -O3 -I. -Xptxas -v $(CUDA_GENCODE) $(if $(WERROR),-Werror all-warnings) -Xcompiler -fPIC,-fvisibility=hidden,-Wall,-Wextra,-Wno-unknown-pragmas
# ccache serves nvcc, too. What ptxas says of every kernel's registers and stack stays beside the object, for tests/cuda/spills.sh.
NVCC_RUN     = tests/cuda/keep_usage.sh $(@:.o=.usage) $(filter ccache,$(CC)) $(NVCC)

# Objects are built again for other GPUs, and when headers of a library come or go.
CUDA_FLAGS := $(filter-out -Werror all-warnings,$(NVFLAGS)) $(CUDA_INCLUDE) $(if $(CUDA_CUDNN),cudnn)
$(O)/cuda/flags: FORCE
	@mkdir -p $(@D); echo '$(CUDA_FLAGS)' | cmp -s - $@ || echo '$(CUDA_FLAGS)' > $@

cuda: $(B)/libfovea-cuda.so ## build the CUDA backend (CUDA_ARCHS="75 90a": only these; docs/gpu.md)
$(B)/libfovea-cuda.so: $(CUDA_OBJ) $(B)/libfovea.a cuda/cuda.map
	@[ -n "$(NVCC)" ] || { echo "make cuda: there is no nvcc; install the CUDA toolkit or give NVCC=/path/to/nvcc" >&2; exit 1; }
	@echo "  LD $@"
	@$(CC) $(LDFLAGS_ALL) $(CUDA_LINK) -Wl,--version-script=cuda/cuda.map -o $@ $(CUDA_OBJ) $(B)/libfovea.a $(CUDA_HOME)/lib64/libcudart_static.a -lstdc++ -lrt $(LIBS)
$(O)/cuda/%.cu.o: cuda/%.cu $(O)/cuda/flags
	@mkdir -p $(@D)
	@[ -n "$(NVCC)" ] || { echo "make cuda: there is no nvcc; install the CUDA toolkit or give NVCC=/path/to/nvcc" >&2; exit 1; }
	@echo "  NVCC $<"
	@$(NVCC_RUN) $(NVFLAGS) -MMD -MF $(@:.o=.d) -MT $@ -c $< -o $@
$(O)/cuda/%.c.o: cuda/%.c $(O)/cuda/flags
	@mkdir -p $(@D)
	@echo "  CC $<"
	@$(CC) $(CFLAGS_CUDA) $(CUDA_INCLUDE) -c $< -o $@

# The same sources against a CUDA runtime on the host (tests/cuda/emulate): what tests run where there is no GPU. -MD: its headers
# stand where a system's would, and make must see when they change.
CXX          ?= g++
EMULATED_SRC := $(CUDA_KERNEL_SRC) $(CUDA_HOST_SRC) cuda/libraries_none.c $(wildcard tests/cuda/emulate/*.cpp)
EMULATED_OBJ := $(EMULATED_SRC:%=$(O)/emulated/%.o)
EMULATED_LIB := $(if $(wildcard cuda/kernels/table.cu),$(if $(shell command -v $(CXX)),$(B)/emulated/libfovea-cuda.so))
EMULATED_CXX  = $(filter ccache,$(CC)) $(CXX) -std=gnu++17 -ffile-prefix-map=$(CURDIR)=. $(OPT_$(KIND)) -O2 -fPIC -I. -isystem tests/cuda/emulate -MD -MP \
    -Wall -Wextra -Wno-unknown-pragmas $(if $(WERROR),-Werror)

emulated: $(B)/emulated/libfovea-cuda.so
$(B)/emulated/libfovea-cuda.so: $(EMULATED_OBJ) $(B)/libfovea.a tests/cuda/emulated.map
	@mkdir -p $(@D)
	@echo "  LD $@"
	@$(CC) $(LDFLAGS_ALL) $(CUDA_LINK) -Wl,--version-script=tests/cuda/emulated.map -o $@ $(EMULATED_OBJ) $(B)/libfovea.a -lstdc++ $(LIBS)
$(O)/emulated/%.cu.o: %.cu
	@mkdir -p $(@D)
	@echo "  CXX $< (emulated)"
	@$(EMULATED_CXX) -fvisibility=hidden -x c++ -c $< -o $@
$(O)/emulated/%.cpp.o: %.cpp
	@mkdir -p $(@D)
	@echo "  CXX $<"
	@$(EMULATED_CXX) -c $< -o $@
$(O)/emulated/%.c.o: %.c
	@mkdir -p $(@D)
	@echo "  CC $< (emulated)"
	@$(CC) $(patsubst -MMD,-MD,$(CFLAGS_CUDA)) -isystem tests/cuda/emulate -c $< -o $@

# What libraries.c makes of libraries that it finds: the emulation with it, with and without cuDNN, and libraries that compute nothing.
FAKES := $(B)/emulated/fakes
FAKED := $(filter-out %/libraries_none.c.o,$(EMULATED_OBJ))
$(FAKES)/libfovea-cuda.so: $(FAKED) $(CUDA_LIBRARIES:%=$(O)/%.o) $(B)/libfovea.a tests/cuda/emulated.map
$(FAKES)/without/libfovea-cuda.so: $(FAKED) $(addprefix $(O)/without/cuda/,libraries.c.o find.c.o matmul_lt.c.o conv_none.c.o) $(B)/libfovea.a tests/cuda/emulated.map
$(FAKES)/libfovea-cuda.so $(FAKES)/without/libfovea-cuda.so:
	@mkdir -p $(@D)
	@echo "  LD $@"
	@$(CC) $(LDFLAGS_ALL) $(CUDA_LINK) -Wl,--version-script=tests/cuda/emulated.map -o $@ $(filter %.o %.a,$^) -lstdc++ $(LIBS)
$(O)/without/cuda/%.c.o: cuda/%.c
	@mkdir -p $(@D)
	@echo "  CC $< (without cuDNN)"
	@$(CC) $(CFLAGS_ALL) -fvisibility=hidden -DFV_WITHOUT_CUDNN $(CUDA_INCLUDE) -c $< -o $@
$(FAKES)/libcudnn.so.9: tests/cuda/fakes.c
	@mkdir -p $(@D)
	@echo "  LD $@"
	@$(CC) $(CFLAGS_ALL) -DFAKE_CUDNN $(CUDA_INCLUDE) -MF $(FAKES)/cudnn.d -shared -o $@ $<
$(FAKES)/libcublasLt.so: tests/cuda/fakes.c
	@mkdir -p $(@D)
	@echo "  LD $@"
	@$(CC) $(CFLAGS_ALL) $(CUDA_INCLUDE) -MF $(FAKES)/cublas.d -shared -o $@ $<
	@for version in 12 13; do cp $@ $@.$$version; done

# cuDNN's plans for the convolutions of every model, made without a GPU.
CUDA_CHECKS := $(if $(and $(CUDA_CUDNN),$(CUDA_LT),$(filter release,$(KIND))),$(addprefix $(FAKES)/,libfovea-cuda.so without/libfovea-cuda.so libcudnn.so.9 libcublasLt.so)) \
    $(if $(CUDA_CUDNN),$(B)/cudnn-plans) $(if $(CUDA_LT),$(if $(filter release,$(KIND)),$(B)/gpu-ceilings))
$(B)/cudnn-plans: $(O)/tests/cuda/plans.c.o $(O)/cuda/conv_cudnn.c.o $(O)/cuda/problem.c.o $(B)/libfovea.a
	@echo "  LD $@"
	@$(CC) $(LDFLAGS_ALL) -o $@ $^ $(LIBS)
$(O)/tests/cuda/%.c.o: tests/cuda/%.c
	@mkdir -p $(@D)
	@echo "  CC $<"
	@$(CC) $(CFLAGS_ALL) $(CUDA_INCLUDE) -c $< -o $@

# What a GPU can do at most; part of gpu-check.
CEILINGS_OBJ := $(addprefix $(O)/,tests/cuda/ceilings.c.o cuda/matmul_lt.c.o cuda/find.c.o cuda/launch.cu.o)
$(B)/gpu-ceilings: $(CEILINGS_OBJ) $(B)/libfovea.a
	@echo "  LD $@"
	@$(CC) $(LDFLAGS_ALL) -o $@ $^ $(CUDA_HOME)/lib64/libcudart_static.a -lstdc++ -lrt $(LIBS)

gpu-check: ## on a machine with a GPU: what cannot be tested without one (docs/gpu.md)
	BUILD_DIR=$(B) tools/gpu-check.sh
cuda-spills: $(CUDA_LIB) ## fail if a CUDA kernel keeps registers in memory
	tests/cuda/spills.sh $(B)

.PHONY: cuda emulated gpu-check cuda-spills
