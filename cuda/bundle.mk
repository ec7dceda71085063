# What gpu-check needs, built, in one folder that can be carried to a machine with a GPU that has no headers, no compiler and no
# network: build/gpu. The libraries that we do not write are linked in where their .a is there, else they lie beside the programs.
#   make gpu-bundle [CUDA_ARCHS="80 90a"] [PACK=folder] [PEER=script]
# CUDA_ARCHS: default 90a. PACK: as of tools/prepare-data.sh; its CIFAR-10 comes along. PEER: what measures PyTorch, likewise.
# The speed run's original recipe (tests/peers/train_torch_speedrun.py) always does.
BUNDLE := $(B)/gpu
static_or_shared = $(if $(filter /%,$(shell $(CC) -print-file-name=lib$(1).a)),-Wl$(,)-Bstatic -l$(1) -Wl$(,)-Bdynamic,-l$(1))
, := ,
BUNDLE_LIBS     = $(foreach l,jansson yaml xxhash png jpeg z,$(call static_or_shared,$(l))) -ldl -lm -lpthread
BUNDLE_CHECK    = $(foreach l,check subunit,$(call static_or_shared,$(l)))
BUNDLE_LINK     = $(CC) $(LDFLAGS_ALL) -s -static-libgcc -Wl,--as-needed -Wl,-rpath,'$$ORIGIN' -o $@
BUNDLE_PROGRAMS = $(addprefix $(BUNDLE)/,fovea unit-tests libfovea-cuda.so gpu-ceilings unpack-cifar10)

$(BUNDLE)/fovea: $(TOOL_OBJ) $(B)/libfovea.a
	@mkdir -p $(@D); echo "  LD $@"
	@$(BUNDLE_LINK) $^ $(BUNDLE_LIBS)
$(BUNDLE)/unit-tests: $(TEST_SRC:%.c=$(O)/%.o) $(O)/cuda/tune.o $(O)/cuda/find.o $(WIDE_OBJ) $(FUZZ_OBJ)
	@mkdir -p $(@D); echo "  LD $@"
	@$(BUNDLE_LINK) $^ $(BUNDLE_CHECK) $(BUNDLE_LIBS) -lrt
$(BUNDLE)/libfovea-cuda.so: $(CUDA_OBJ) $(B)/libfovea.a cuda/cuda.map
	@mkdir -p $(@D); echo "  LD $@"
	@$(BUNDLE_LINK) $(CUDA_LINK) -Wl,--version-script=cuda/cuda.map $(CUDA_OBJ) $(B)/libfovea.a $(CUDA_HOME)/lib64/libcudart_static.a $(call static_or_shared,stdc++) -lrt $(BUNDLE_LIBS)
$(BUNDLE)/gpu-ceilings: $(CEILINGS_OBJ) $(B)/libfovea.a
	@mkdir -p $(@D); echo "  LD $@"
	@$(BUNDLE_LINK) $^ $(CUDA_HOME)/lib64/libcudart_static.a $(call static_or_shared,stdc++) -lrt $(BUNDLE_LIBS)

$(BUNDLE)/unpack-cifar10: $(O)/tests/cuda/unpack_cifar10.c.o $(B)/libfovea.a
	@mkdir -p $(@D); echo "  LD $@"
	@$(BUNDLE_LINK) $^ $(BUNDLE_LIBS)

gpu-bundle: ## what gpu-check needs, built, to be carried to a machine with a GPU: build/gpu (docs/gpu.md)
	@[ -n "$(CUDA_LT)" ] && [ -n "$(CUDA_CUDNN)" ] || { echo "make gpu-bundle: nvcc and the headers of cuDNN and cuBLASLt must be there" >&2; exit 1; }
	@$(MAKE) --no-print-directory CUDA_ARCHS="$(CUDA_ARCHS)" gpu-bundle-programs
	@PACK="$(PACK)" PEER="$(PEER)" tools/gpu-bundle.sh $(BUNDLE) "$(COMMIT)" "$(CUDA_ARCHS)"
gpu-bundle-programs: $(BUNDLE_PROGRAMS)
CUDA_CHECKS += $(if $(and $(CUDA_LT),$(CUDA_CUDNN),$(filter release,$(KIND))),$(BUNDLE_PROGRAMS))
.PHONY: gpu-bundle gpu-bundle-programs
