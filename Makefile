# Fovea. `make help` lists the targets.
.DELETE_ON_ERROR:
SHELL   := /bin/bash
VERSION := 0.1.0
PREFIX  ?= /usr/local
DESTDIR ?=
ifeq ($(origin CC),default)
CC := gcc
endif
BUILD   ?= build
KIND    ?= release
WERROR  ?=
# Compilers at once, where a target builds by itself.
JOBS    ?= $(shell nproc)

B := $(if $(filter release,$(KIND)),$(BUILD),$(BUILD)/$(KIND))
O := $(B)/obj

WARN   := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wno-missing-field-initializers $(if $(WERROR),-Werror)
# No path of this machine ends up in the objects: two builds give the same bytes, wherever they are made.
BASE   := -std=c11 -D_GNU_SOURCE -I. -ffile-prefix-map=$(CURDIR)=. -fPIC -fvisibility=default -fno-math-errno -MMD -MP $(WARN)
# C has nobody who would read unwind tables; they are 180 KB.
OPT_release := -O2 -g1 -DNDEBUG -fno-asynchronous-unwind-tables
OPT_debug   := -O1 -g -DFV_DEBUG
OPT_asan    := -O1 -g1 -DFV_DEBUG -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
OPT_tsan    := -O1 -g1 -fsanitize=thread -fno-omit-frame-pointer
OPT_cov     := -O0 -g --coverage -fprofile-update=atomic -DNDEBUG -DFV_COVERAGE -DFV_ARENA_BLOCK=0
OPT_fuzz    := -O1 -g -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
CFLAGS_ALL = $(BASE) $(OPT_$(KIND)) $(CFLAGS)
LDFLAGS_ALL := $(filter -fsanitize=% --coverage,$(OPT_$(KIND))) $(LDFLAGS)
LIBS := -ljansson -lyaml -lxxhash -lz -lpng -ljpeg -ldl -lm -lpthread

# Vector kernels are compiled once per instruction set (core/cpu/cpu.h). Contraction to FMA is allowed in them, and only there.
ARCH := $(shell $(CC) -dumpmachine | cut -d- -f1)
ALL_ISAS := generic $(if $(filter x86_64,$(ARCH)),avx2 avx512)
# Builds that only ever run here leave out what this processor cannot run; fuzz targets run no kernel at all.
CPU_HAS  := $(shell grep -m1 '^flags' /proc/cpuinfo 2>/dev/null)
ISAS_tested := generic $(and $(filter avx2,$(CPU_HAS)),avx2) $(and $(filter avx512bw,$(CPU_HAS)),$(filter avx512vl,$(CPU_HAS)),avx512)
ISAS_fuzz   := generic
ISAS := $(filter $(if $(filter asan tsan cov,$(KIND)),$(ISAS_tested),$(or $(ISAS_$(KIND)),$(ALL_ISAS))),$(ALL_ISAS))
# Memory bounds what is built for bf16 and float16 data, and -O3 makes it a third larger.
OPT_low     := $(if $(filter asan tsan cov,$(KIND)),,-O2)
# -O2: nobody chooses it for its speed, and -O3 makes it a third larger.
ISA_generic := $(if $(filter asan tsan cov,$(KIND)),-O1,-O2) -ffp-contract=off
# gcc takes up to ten times as long to optimise what a sanitizer has added.
OPT_vector  := $(if $(filter asan tsan,$(KIND)),-O1,-O3)
ISA_avx2    := $(OPT_vector) -mavx2 -mfma -mf16c -ffp-contract=fast
# Tests only: the geometry of AVX-512 on AVX2.
ISA_wide    := -O1 -mavx2 -mfma -mf16c -ffp-contract=fast -Wno-psabi
ISA_avx512  := $(OPT_vector) -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx2 -mfma -mf16c -mprefer-vector-width=512 -ffp-contract=fast

KERNEL_SRC := $(sort $(wildcard core/cpu/kernels/*.c))
# Those that are built again, for bf16 and f16 data (core/cpu/kernels/tile.h); f16 only where the processor converts it.
BF16_SRC := $(addprefix core/cpu/kernels/,activation.c batch_norm.c elementwise.c norm.c pool.c random.c reduce.c shape.c)
F16_SRC  := $(filter-out %/shape.c,$(BF16_SRC))
F16_ISAS := $(filter avx2 avx512,$(ISAS))
# Built again for bf16 in pairs, which avx512_bf16 multiplies and `wide` emulates.
PAIRS_SRC    := core/cpu/kernels/gemm.c
PAIRS_avx512 := -mavx512bf16
LIB_SRC  := $(sort $(wildcard core/*.c core/ops/*.c core/ref/*.c core/cpu/*.c core/io/*.c layers/*.c optim/*.c data/*.c))
TOOL_SRC := $(sort $(wildcard tools/*.c tools/cli/*.c tools/train/*.c tools/report/*.c))
TEST_SRC := $(wildcard tests/*.c)
EXAMPLES := $(patsubst examples/%.c,%,$(wildcard examples/*.c))
LIB_OBJ  := $(LIB_SRC:%.c=$(O)/%.o) $(foreach i,$(ISAS),$(KERNEL_SRC:%.c=$(O)/$(i)/%.o) $(BF16_SRC:%.c=$(O)/$(i)/bf16/%.o)) \
    $(foreach i,$(F16_ISAS),$(F16_SRC:%.c=$(O)/$(i)/f16/%.o)) $(foreach i,$(filter avx512,$(ISAS)),$(O)/$(i)/pairs/$(PAIRS_SRC:.c=.o))
TOOL_OBJ := $(TOOL_SRC:%.c=$(O)/%.o) $(O)/tools/cli/recipe_texts.o

.DEFAULT_GOAL := all
include cuda/cuda.mk

all: $(B)/fovea $(B)/libfovea.a $(B)/libfovea.so $(CUDA_LIB) $(B)/fovea.1 $(B)/completion.bash $(B)/completion.zsh $(B)/completion.fish ## build the program, the library, the man page and, where nvcc is, the CUDA backend

# Installs missing packages on Debian and Ubuntu; NO_DEPS=1 leaves that out.
deps:
	@[ -n "$(NO_DEPS)" ] || tools/deps.sh
deps-test:
	@[ -n "$(NO_DEPS)" ] || tools/deps.sh --test
deps-lint:
	@[ -n "$(NO_DEPS)" ] || tools/deps.sh --test --lint

# Objects are built again when the flags change.
FLAGS := $(filter-out ccache -Werror,$(CC) $(BASE) $(OPT_$(KIND)) $(CFLAGS) $(OPT_low) $(PAIRS_avx512) $(foreach i,$(ISAS) wide,$(ISA_$(i))))
$(O)/flags: FORCE
	@mkdir -p $(@D); echo '$(FLAGS)' | cmp -s - $@ || echo '$(FLAGS)' > $@

$(O)/%.o: %.c $(O)/flags
	@mkdir -p $(@D)
	@echo "  CC $<"
	@$(CC) $(CFLAGS_ALL) -c $< -o $@
# Fuzz targets link the kernels and run none of them: these need no sanitizer, which takes minutes to compile.
CFLAGS_KERNEL = $(if $(filter fuzz,$(KIND)),$(filter-out -fsanitize=%,$(CFLAGS_ALL)),$(CFLAGS_ALL))
# Coverage is counted in the generic build of them: the others have the same source.
define isa_rule
$(O)/$(1)/%.o: %.c $(O)/flags
	@mkdir -p $$(@D)
	@echo "  CC $$< ($(1))"
	@$(CC) $(if $(filter generic,$(1)),$(CFLAGS_KERNEL),$(filter-out --coverage,$(CFLAGS_KERNEL))) $(ISA_$(1)) -DFV_ISA=$(1) -DFV_ISA_$(1)=1 -c $$< -o $$@
$(O)/$(1)/bf16/%.o: %.c $(O)/flags
	@mkdir -p $$(@D)
	@echo "  CC $$< ($(1), bf16)"
	@$(CC) $(if $(filter generic,$(1)),$(CFLAGS_KERNEL),$(filter-out --coverage,$(CFLAGS_KERNEL))) $(ISA_$(1)) $(OPT_low) -DFV_ISA=$(1) -DFV_ISA_$(1)=1 -DFV_BF16_DATA -c $$< -o $$@
$(O)/$(1)/f16/%.o: %.c $(O)/flags
	@mkdir -p $$(@D)
	@echo "  CC $$< ($(1), f16)"
	@$(CC) $(filter-out --coverage,$(CFLAGS_KERNEL)) $(ISA_$(1)) $(OPT_low) -DFV_ISA=$(1) -DFV_ISA_$(1)=1 -DFV_F16_DATA -c $$< -o $$@
$(O)/$(1)/pairs/%.o: %.c $(O)/flags
	@mkdir -p $$(@D)
	@echo "  CC $$< ($(1), pairs)"
	@$(CC) $(filter-out --coverage,$(CFLAGS_KERNEL)) $(ISA_$(1)) $(PAIRS_$(1)) -DFV_ISA=$(1) -DFV_ISA_$(1)=1 -DFV_PAIRS -c $$< -o $$@
endef
$(foreach i,$(ISAS) wide,$(eval $(call isa_rule,$(i))))

$(O)/core/cpu/device.o: CFLAGS += $(patsubst %,-DFV_WITHOUT_%,$(filter-out $(ISAS),$(ALL_ISAS)))

# Every test with the synthetic set waits for its painter, which is one thread.
ifeq ($(KIND),cov)
$(O)/core/rng.o: CFLAGS += -O1
$(O)/data/synthetic.o: CFLAGS += -O1 -fprofile-update=single
endif

# The commit goes into env.json of every run; the object is rebuilt when it changes.
COMMIT := $(shell git describe --always --dirty --exclude='*' 2>/dev/null || echo unknown)
COMMIT_DATE := $(shell git log -1 --format=%cs 2>/dev/null)
$(O)/commit: FORCE
	@mkdir -p $(@D); echo '$(COMMIT)' | cmp -s - $@ || echo '$(COMMIT)' > $@
$(O)/tools/cli/version.o: CFLAGS += -DFV_COMMIT='"$(COMMIT)"' -DFV_COMMIT_DATE='"$(COMMIT_DATE)"'
$(O)/tools/cli/version.o: $(O)/commit

# Recipes are compiled in. Without debugging information, which would name the folder of the build.
RECIPES := $(sort $(wildcard tools/recipes/*.yaml))
$(O)/recipe_texts.c: $(RECIPES) tools/recipes/embed.awk FORCE
	@mkdir -p $(@D); LC_ALL=C awk -f tools/recipes/embed.awk $(RECIPES) > $@.new
	@if cmp -s $@.new $@; then rm $@.new; else mv $@.new $@; fi
$(O)/tools/cli/recipe_texts.o: $(O)/recipe_texts.c tools/cli/recipes.h tools/cli/options.h tools/cli/options.def
	@mkdir -p $(@D)
	@echo "  CC tools/recipes"
	@$(CC) $(filter-out -MMD -MP --coverage,$(CFLAGS_ALL)) -g0 -c $< -o $@

$(B)/libfovea.a: $(LIB_OBJ)
	@rm -f $@; ar rcsD $@ $^
$(B)/libfovea.so: $(LIB_OBJ) libfovea.map
	@echo "  LD $@"
	@$(CC) $(LDFLAGS_ALL) -shared -Wl,-soname,libfovea.so.0 -Wl,--version-script=libfovea.map -o $@ $(LIB_OBJ) $(LIBS)
$(B)/fovea: $(TOOL_OBJ) $(B)/libfovea.a
	@echo "  LD $@"
	@$(CC) $(LDFLAGS_ALL) -Wl,--as-needed -Wl,-z,now -o $@ $^ $(LIBS)
$(B)/fovea.1: $(B)/fovea
	@$(B)/fovea help --man > $@
$(B)/completion.%: $(B)/fovea
	@$(B)/fovea completion $* > $@
# Kernels with vectors of 16 lanes on any processor, for the tests. Sanitizers and counters see those of the other builds.
WIDE_OBJ     := $(if $(filter avx2,$(ISAS)),$(if $(filter release debug,$(KIND)),$(KERNEL_SRC:%.c=$(O)/wide/%.o) $(BF16_SRC:%.c=$(O)/wide/bf16/%.o) $(O)/wide/pairs/$(PAIRS_SRC:.c=.o)))
# What unit tests and fuzz targets need beside their own files.
FUZZ_OBJ     := $(O)/tests/fuzz/memory_io.o $(filter $(O)/tools/cli/%,$(TOOL_OBJ)) $(B)/libfovea.a
$(B)/unit-tests: $(TEST_SRC:%.c=$(O)/%.o) $(O)/cuda/tune.o $(O)/cuda/find.o $(WIDE_OBJ) $(FUZZ_OBJ)
	@echo "  LD $@"
	@$(CC) $(LDFLAGS_ALL) -o $@ $^ $(shell pkg-config --libs check) $(LIBS)
include cuda/bundle.mk
# Watches a program's calls on files and makes them fail (LD_PRELOAD).
$(B)/fault.so: tests/faults/preload.c
	@mkdir -p $(@D)
	@echo "  LD $@"
	@$(CC) $(BASE) -O2 -g -fno-builtin-log -shared -MF $(B)/fault.d -o $@ $< -ldl
# Fuzz targets: with libFuzzer, and all in one program that replays the corpus (docs/fuzzing.md).
FUZZ_TARGETS := $(shell sed -nE 's/^TARGET\((.*)\)$$/\1/p' tests/fuzz/targets.def)
$(B)/fuzz-%: $(O)/tests/fuzz/%.o $(FUZZ_OBJ)
	@echo "  LD $@"
	@$(CC) $(LDFLAGS_ALL) -fsanitize=fuzzer -o $@ $^ $(LIBS)
$(O)/fuzz-replay/%.o: tests/fuzz/%.c
	@mkdir -p $(@D)
	@echo "  CC $< (replay)"
	@$(CC) $(CFLAGS_ALL) -DLLVMFuzzerTestOneInput=fvt_fuzz_$* -c $< -o $@
$(B)/fuzz-replay: $(O)/tests/fuzz/replay.o $(FUZZ_TARGETS:%=$(O)/fuzz-replay/%.o) $(FUZZ_OBJ)
	@echo "  LD $@"
	@$(CC) $(LDFLAGS_ALL) -o $@ $^ $(LIBS)
$(B)/example-%: $(O)/examples/%.o $(B)/libfovea.a
	@echo "  LD $@"
	@$(CC) $(LDFLAGS_ALL) -o $@ $^ $(LIBS)
examples: $(EXAMPLES:%=$(B)/example-%) ## build the example programs
objects: $(LIB_OBJ) $(TOOL_OBJ) $(EXAMPLES:%=$(O)/examples/%.o) # what lint compiles

demo: deps ## train something real in under five minutes
	@$(MAKE) --no-print-directory -j$(JOBS) NO_DEPS=1 $(B)/fovea
	@tools/demo.sh $(B)/fovea

test: deps-test ## build and run all tests
	@$(MAKE) --no-print-directory -j$(JOBS) NO_DEPS=1 KIND=$(KIND) test-programs
	BUILD_DIR=$(B) tests/run.sh
test-programs: all examples $(B)/unit-tests $(B)/fault.so $(EMULATED_LIB) $(CUDA_CHECKS)

asan tsan debug: ## build with sanitizers (asan, tsan) or NaN poisoning (debug) and run the unit tests
	@$(MAKE) --no-print-directory NO_DEPS=1 KIND=$@ $(BUILD)/$@/unit-tests $(BUILD)/$@/fovea $(if $(filter asan,$@),$(BUILD)/$@/fuzz-replay)
	BUILD_DIR=$(BUILD)/$@ tests/run-sanitized.sh $@

test-aarch64: deps-test ## build for aarch64 and run the tests of kernels and files under qemu (tests/aarch64.sh)
	@[ -n "$(NO_DEPS)" ] || tools/deps.sh --aarch64
	@BUILD=$(BUILD) tests/aarch64.sh

cov: deps-lint ## branch coverage of the tests, per folder, and its limits (docs/reliability.md)
	@$(MAKE) --no-print-directory NO_DEPS=1 KIND=cov $(addprefix $(BUILD)/cov/,unit-tests fovea fuzz-replay fault.so)
	@BUILD_DIR=$(BUILD)/cov tests/coverage.sh

fuzz: deps-lint ## build the fuzz targets (clang, libFuzzer)
	@$(MAKE) --no-print-directory NO_DEPS=1 CC=clang KIND=fuzz $(FUZZ_TARGETS:%=$(BUILD)/fuzz/fuzz-%)
fuzz-run: fuzz ## fuzz one target: make fuzz-run TARGET=yaml SECONDS=60
	@tests/fuzz/run.sh "$(BUILD)/fuzz" "$(TARGET)" "$(SECONDS)"

test-kill: deps-test ## kill a run 200 times at random moments, resume it each time, compare the bits (FOVEA_KILLS=N)
	@$(MAKE) --no-print-directory NO_DEPS=1 $(B)/fovea
	tests/kill_loop.py $(B)/fovea
test-faults: deps-test ## every error at every call on files (docs/reliability.md)
	@$(MAKE) --no-print-directory NO_DEPS=1 $(B)/fovea $(B)/fault.so
	FOVEA=$(B)/fovea FOVEA_FAULTS=all tests/test_faults.sh R3
mutants: deps-test ## break each promise of docs/reliability.md in a copy of the tree; a test must notice (MUTANTS="R1 R5": only these)
	@tests/mutants/run.sh $(MUTANTS)

lint: deps-lint ## warnings as errors (gcc, clang), formatting, includes between folders, cppcheck, shellcheck
	@tools/lint.sh

analyze: deps-lint ## static analysis: gcc -fanalyzer and clang-tidy
	@tools/analyze.sh

bench: deps-test $(B)/fovea ## measure beside PyTorch when that is installed (tests/peers/requirements.txt)
	@tests/peers/bench.sh $(B)/fovea

bench-quick: deps $(B)/fovea ## training speed beside what was recorded on this kind of machine (RECORD=1: record it)
	@RECORD="$(RECORD)" tests/bench_quick.sh $(B)/fovea

stripped: $(B)/fovea
	strip -o $(B)/fovea.stripped $(B)/fovea

install: all ## install into $(DESTDIR)$(PREFIX)
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/lib/pkgconfig $(DESTDIR)$(PREFIX)/share/man/man1
	install -s -m 755 $(B)/fovea $(DESTDIR)$(PREFIX)/bin/fovea
	install -m 644 $(B)/libfovea.a $(DESTDIR)$(PREFIX)/lib/
	[ ! -e $(B)/libfovea-cuda.so ] || install -s -m 755 $(B)/libfovea-cuda.so $(DESTDIR)$(PREFIX)/lib/
	install -m 755 $(B)/libfovea.so $(DESTDIR)$(PREFIX)/lib/libfovea.so.$(VERSION)
	ln -sf libfovea.so.$(VERSION) $(DESTDIR)$(PREFIX)/lib/libfovea.so.0
	ln -sf libfovea.so.0 $(DESTDIR)$(PREFIX)/lib/libfovea.so
	install -m 644 $(B)/fovea.1 $(DESTDIR)$(PREFIX)/share/man/man1/
	install -D -m 644 $(B)/completion.bash $(DESTDIR)$(PREFIX)/share/bash-completion/completions/fovea
	install -D -m 644 $(B)/completion.zsh $(DESTDIR)$(PREFIX)/share/zsh/site-functions/_fovea
	install -D -m 644 $(B)/completion.fish $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/fovea.fish
	for h in $(HEADERS); do install -D -m 644 $$h $(DESTDIR)$(PREFIX)/include/fovea/$$h; done
	sed -e 's|@PREFIX@|$(PREFIX)|; s|@VERSION@|$(VERSION)|' fovea.pc.in > $(DESTDIR)$(PREFIX)/lib/pkgconfig/fovea.pc
uninstall: ## remove what install put there
	rm -f $(DESTDIR)$(PREFIX)/bin/fovea $(DESTDIR)$(PREFIX)/lib/libfovea.a $(DESTDIR)$(PREFIX)/lib/libfovea.so* $(DESTDIR)$(PREFIX)/lib/libfovea-cuda.so
	rm -f $(DESTDIR)$(PREFIX)/share/man/man1/fovea.1 $(DESTDIR)$(PREFIX)/lib/pkgconfig/fovea.pc
	rm -f $(DESTDIR)$(PREFIX)/share/bash-completion/completions/fovea $(DESTDIR)$(PREFIX)/share/zsh/site-functions/_fovea
	rm -f $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/fovea.fish
	rm -rf $(DESTDIR)$(PREFIX)/include/fovea
HEADERS := fovea.h $(wildcard core/*.h) core/ops.def core/io/io.h layers/layers.h optim/optim.h data/data.h

clean: ## remove everything that was built
	rm -rf $(BUILD)
help: ## list the targets
	@grep -hE '^[a-z][a-z0-9 -]*:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9 -]+):[^#]*## ?/\1\t/' | awk -F'\t' '{printf "  make %-22s %s\n", $$1, $$2}'

FORCE:
.PHONY: all objects deps deps-test deps-lint examples demo test test-programs asan tsan debug cov fuzz fuzz-run test-aarch64 test-kill test-faults mutants lint analyze bench bench-quick stripped install uninstall clean help FORCE
.SECONDARY:

-include $(shell find $(O) -name '*.d' 2>/dev/null)
