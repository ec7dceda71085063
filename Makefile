# Fovea. `make help` lists the targets.
.DELETE_ON_ERROR:
SHELL   := /bin/bash
VERSION := 0.1.0
PREFIX  ?= /usr/local
DESTDIR ?=
CC      ?= gcc
BUILD   ?= build
KIND    ?= release
WERROR  ?=

B := $(if $(filter release,$(KIND)),$(BUILD),$(BUILD)/$(KIND))
O := $(B)/obj

WARN   := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wno-missing-field-initializers -Wno-unknown-warning-option $(if $(WERROR),-Werror)
BASE   := -std=c11 -D_GNU_SOURCE -I. -fPIC -fvisibility=default -fno-math-errno -MMD -MP $(WARN)
OPT_release := -O2 -g -DNDEBUG
OPT_debug   := -O1 -g -DFV_DEBUG
OPT_asan    := -O1 -g -DFV_DEBUG -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
OPT_tsan    := -O1 -g -fsanitize=thread -fno-omit-frame-pointer
OPT_cov     := -O0 -g --coverage
CFLAGS_ALL := $(BASE) $(OPT_$(KIND)) $(CFLAGS)
LDFLAGS_ALL := $(filter -fsanitize=% --coverage,$(OPT_$(KIND))) $(LDFLAGS)
LIBS := -ljansson -lyaml -lxxhash -lz -lpng -ldl -lm -lpthread

# Vector kernels are compiled once per instruction set (core/cpu/cpu.h). Contraction to FMA is allowed in them, and only there.
ARCH := $(shell $(CC) -dumpmachine | cut -d- -f1)
ISAS := generic $(if $(filter x86_64,$(ARCH)),avx2 avx512)
ISA_generic := -O3 -ffp-contract=off
ISA_avx2    := -O3 -mavx2 -mfma -mf16c -ffp-contract=fast
ISA_avx512  := -O3 -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx2 -mfma -mf16c -mprefer-vector-width=512 -ffp-contract=fast

KERNEL_SRC := $(wildcard core/cpu/kernels/*.c)
LIB_SRC  := $(wildcard core/*.c core/ops/*.c core/ref/*.c core/cpu/*.c core/io/*.c layers/*.c optim/*.c data/*.c)
TOOL_SRC := $(wildcard tools/*.c tools/cli/*.c tools/train/*.c tools/report/*.c)
TEST_SRC := $(wildcard tests/*.c)
LIB_OBJ  := $(LIB_SRC:%.c=$(O)/%.o) $(foreach i,$(ISAS),$(KERNEL_SRC:%.c=$(O)/$(i)/%.o))
TOOL_OBJ := $(TOOL_SRC:%.c=$(O)/%.o)

all: $(B)/fovea $(B)/libfovea.a $(B)/libfovea.so ## build the program and the library

$(O)/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(CFLAGS_ALL) -c $< -o $@
define isa_rule
$(O)/$(1)/%.o: %.c
	@mkdir -p $$(@D)
	$(CC) $(CFLAGS_ALL) $(ISA_$(1)) -DFV_ISA=$(1) -DFV_ISA_$(1)=1 -c $$< -o $$@
endef
$(foreach i,$(ISAS),$(eval $(call isa_rule,$(i))))

$(B)/libfovea.a: $(LIB_OBJ)
	@rm -f $@; ar rcs $@ $^
$(B)/fovea: $(TOOL_OBJ) $(B)/libfovea.a
	$(CC) $(LDFLAGS_ALL) -o $@ $^ $(LIBS)

-include $(shell find $(O) -name '*.d' 2>/dev/null)
