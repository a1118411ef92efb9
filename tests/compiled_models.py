"""Models compiled for the Edge TPU, written tensor by tensor, and a stand-in of the library that runs them.

The library is a real TFLite delegate: it takes the operation `edgetpu-custom-op` and computes it on the CPU.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np

from edgeq_converters.graph.tflite_file import EDGETPU_OP
from tests.converters.graphs import Graph

# Scales of the input and the output: in int8, x + x has the integers of x.
IN, OUT = 0.5, 1.0

# The structs are those of tensorflow/lite/core/c/common.h, as far as they are used.
_DELEGATE = """
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct { int size; int data[]; } ints;
typedef struct { int64_t type; void *data; ints *dims; float scale; int zero_point; int64_t allocation;
                 size_t bytes; char rest[64]; } tensor;
typedef struct { ints *inputs; ints *outputs; ints *intermediates; ints *temporaries; void *user_data;
                 void *builtin_data; const void *custom_initial_data; int custom_initial_data_size; } node;
struct context;
typedef struct {
    void *(*init)(struct context *, const char *, size_t);
    void (*free)(struct context *, void *);
    int (*prepare)(struct context *, node *);
    int (*invoke)(struct context *, node *);
    const char *(*profiling)(const struct context *, const node *);
    int32_t builtin_code; const char *custom_name; int version; void *rest[3];
} registration;
typedef struct delegate { void *data; int (*prepare)(struct context *, struct delegate *); void *rest[3];
                          int64_t flags; void *builder; } delegate;
typedef struct context {
    size_t tensors_size;
    int (*plan)(struct context *, ints **);
    tensor *tensors;
    void *impl; void *resize; void *report; void *add;
    int (*get)(struct context *, int, node **, registration **);
    int (*replace)(struct context *, registration, const ints *, delegate *);
} context;

typedef struct { delegate *delegate; ints *nodes; ints *inputs; ints *outputs; } params;
typedef struct { int in; int out; int shift; } kernel;

static int shift_of(context *c, ints *nodes) {
    node *n; registration *r;
    c->get(c, nodes->data[0], &n, &r);
    return n->custom_initial_data_size ? *(const signed char *)n->custom_initial_data : 0;
}
static void *init(context *c, const char *buffer, size_t length) {
    const params *given = (const params *)buffer;
    node *n; registration *r;
    c->get(c, given->nodes->data[0], &n, &r);
    kernel *made = calloc(1, sizeof *made);
    made->in = n->inputs->data[0]; made->out = n->outputs->data[0]; made->shift = shift_of(c, given->nodes);
    return made;
}
static void release(context *c, void *made) { free(made); }
static int ready(context *c, node *n) { return 0; }
static int invoke(context *c, node *n) {
    kernel *k = n->user_data;
    tensor *in = &c->tensors[k->in], *out = &c->tensors[k->out];
    for (size_t i = 0; i < out->bytes; i++) {
        int value = ((int8_t *)in->data)[i] + k->shift;
        ((int8_t *)out->data)[i] = value > 127 ? 127 : value;
    }
    return 0;
}
static int prepare(context *c, delegate *self) {
    ints *plan, *mine;
    if (c->plan(c, &plan)) return 1;
    mine = calloc(1, sizeof(ints) + plan->size * sizeof(int));
    for (int i = 0; i < plan->size; i++) {
        node *n; registration *r;
        if (c->get(c, plan->data[i], &n, &r)) return 1;
        if (r->custom_name && !strcmp(r->custom_name, "edgetpu-custom-op"))
            mine->data[mine->size++] = plan->data[i];
    }
    registration kernels = {(void *)init, (void *)release, (void *)ready, (void *)invoke};
    kernels.custom_name = "EdgeTpuStandIn";
    int status = mine->size ? c->replace(c, kernels, mine, self) : 0;
    free(mine);
    return status;
}
void *tflite_plugin_create_delegate(char **keys, char **values, size_t count, void (*report)(const char *)) {
    delegate *made = calloc(1, sizeof *made);
    made->prepare = prepare;
    made->flags = 1;  /* the graph is prepared after the delegate has taken its operations */
    return made;
}
void tflite_plugin_destroy_delegate(void *made) { free(made); }
"""


def source() -> bytes:
    """Return the int8 model for the CPU: y = x + x."""
    built = Graph()
    x, y = (
        built.tensor("x", (1, 4), dtype=np.int8, scale=IN),
        built.tensor("y", (1, 4), dtype=np.int8, scale=OUT),
    )
    built.op("ADD", [x, x], [y], options="AddOptions", version=2)
    return built.ends([x], [y]).data()


def compiled(
    *,
    shift: int = 0,
    name: str = "x",
    width: int = 4,
    scale: float = IN,
    dtype: type = np.int8,
    outputs: int = 1,
) -> bytes:
    """Return the model that the compiler would make of `source`: one operation of the Edge TPU.

    Args:
        shift: how many steps the stand-in adds to each value.
    """
    built = Graph()
    x = built.tensor(name, (1, width), dtype=dtype, scale=scale)
    ys = [
        built.tensor("y" if not i else f"y{i}", (1, width), dtype=np.int8, scale=OUT) for i in range(outputs)
    ]
    built.op(f"CUSTOM {EDGETPU_OP}", [x], ys)
    built.graph.operators[0].customOptions = np.array([shift], np.int8).view(np.uint8)
    return built.ends([x], ys).data()


def c_compiler() -> str | None:
    """Return a C compiler, if there is one."""
    return shutil.which("cc") or shutil.which("gcc")


def build_library(folder: Path) -> None:
    """Write the stand-in as libedgetpu.so.1."""
    code = folder / "stand_in.c"
    code.write_text(_DELEGATE)
    library = folder / "libedgetpu.so.1"
    command = [str(c_compiler()), "-w", "-shared", "-fPIC", "-o", str(library), str(code)]
    subprocess.run(command, check=True)
