"""Writes a graph for onnxruntime: `write_onnx.py KIND FOLDER OUT`, KIND of prefill, decode (a Qwen3 folder) or fusion.

Weights stay in FOLDER's safetensors file, to which the graph points as external data: OUT therefore lies beside FOLDER.
Products are Gemm on the weights as they are stored, [outputs, inputs]; a bias or the residual is their third operand.
"""
import json
import os
import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

kind, folder, out = sys.argv[1:4]
FLOAT, INT32, INT64 = TensorProto.FLOAT, TensorProto.INT32, TensorProto.INT64
MICROSOFT = "com.microsoft"
EPS = 1e-6
EMBEDDING = "model.embed_tokens.weight"


class Graph:
    def __init__(self, file):
        self.nodes, self.initializers, self.inputs, self.outputs = [], {}, [], []
        self.file = file
        self.location = os.path.relpath(file, os.path.dirname(os.path.abspath(out)))
        with open(file, "rb") as source:
            length = int.from_bytes(source.read(8), "little")
            self.header, self.start = json.loads(source.read(length)), 8 + length

    def weight(self, name):
        tensor = TensorProto(name=name, data_type=FLOAT, dims=self.header[name]["shape"])
        begin, end = self.header[name]["data_offsets"]
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in {"location": self.location, "offset": self.start + begin, "length": end - begin}.items():
            tensor.external_data.add(key=key, value=str(value))
        self.initializers[name] = tensor
        return name

    def values(self, name):
        tensor = self.header[name]
        begin, end = tensor["data_offsets"]
        count = (end - begin) // 4
        return np.fromfile(self.file, np.float32, count, offset=self.start + begin).reshape(tensor["shape"])

    def constant(self, name, values):
        self.initializers[name] = numpy_helper.from_array(values, name)
        return name

    def op(self, kind, *inputs, outputs=None, domain="", **attributes):
        outputs = outputs or [f"{kind}.{len(self.nodes)}"]
        self.nodes.append(helper.make_node(kind, inputs, outputs, domain=domain, **attributes))
        return outputs[0]

    def reshape(self, x, *shape):
        return self.op("Reshape", x, self.constant("shape." + "x".join(map(str, shape)), np.array(shape, np.int64)))

    def swap(self, x, outputs=None):
        return self.op("Transpose", x, outputs=outputs, perm=[0, 2, 1, 3])

    def linear(self, x, weight, plus=None):
        return self.op("Gemm", x, self.weight(weight), *([plus] if plus else []), transB=1)

    def norm(self, x, weight, scale=1):
        if scale == 1:
            self.weight(weight)
        else:
            self.constant(weight, self.values(weight) * np.float32(scale))
        return self.op("SimplifiedLayerNormalization", x, weight, axis=-1, epsilon=EPS)

    def input(self, name, shape, dtype=FLOAT):
        self.inputs.append(helper.make_tensor_value_info(name, dtype, shape))
        return name

    def output(self, name, shape, dtype=FLOAT):
        self.outputs.append(helper.make_tensor_value_info(name, dtype, shape))
        return name

    def save(self):
        graph = helper.make_graph(self.nodes, kind, self.inputs, self.outputs, [*self.initializers.values()])
        versions = [helper.make_opsetid("", 20), helper.make_opsetid(MICROSOFT, 1)]
        onnx.save(helper.make_model(graph, opset_imports=versions, ir_version=10), out)


class Decoder:
    def __init__(self):
        self.graph = graph = Graph(f"{folder}/model.safetensors")
        self.config = config = json.load(open(f"{folder}/config.json"))
        self.layers, self.dim = config["num_hidden_layers"], config["head_dim"]
        self.queries, self.heads = config["num_attention_heads"], config["num_key_value_heads"]
        turns = np.arange(config["max_position_embeddings"])[:, None]
        angles = turns * config["rope_theta"] ** (-np.arange(0, self.dim, 2) / self.dim)
        self.angles = [
            graph.constant("cos", np.cos(angles).astype(np.float32)),
            graph.constant("sin", np.sin(angles).astype(np.float32)),
        ]

    def embed(self, rows):
        tokens = self.graph.input("tokens", [rows], INT64)
        return self.graph.op("Gather", self.graph.weight(EMBEDDING), tokens)

    def project(self, layer, part, normed, heads, scale=1):
        """Query, key or value as [rows, heads, dim]; queries and keys are normed, which scales them on the way."""
        at = f"model.layers.{layer}.self_attn.{part}"
        x = self.graph.reshape(self.graph.linear(normed, f"{at}_proj.weight"), -1, heads, self.dim)
        return x if part == "v" else self.graph.norm(x, f"{at}_norm.weight", scale)

    def rest(self, layer, x, attended):
        """What follows attention in a layer."""
        graph, at = self.graph, f"model.layers.{layer}"
        attended = graph.reshape(attended, -1, self.queries * self.dim)
        x = graph.linear(attended, f"{at}.self_attn.o_proj.weight", x)
        normed = graph.norm(x, f"{at}.post_attention_layernorm.weight")
        gate, up = (graph.linear(normed, f"{at}.mlp.{part}_proj.weight") for part in ("gate", "up"))
        inner = graph.op("Mul", graph.op("Mul", gate, graph.op("Sigmoid", gate)), up)
        return graph.linear(inner, f"{at}.mlp.down_proj.weight", x)

    def prefill(self):
        """A prompt's keys and values, so the last layer stops behind them."""
        graph, heads, dim = self.graph, self.heads, self.dim
        x = self.embed("rows")
        last, total = graph.input("last", [1], INT32), graph.input("total", [1], INT32)
        start = graph.constant("start", np.array([0], np.int64))
        for i in range(self.layers):
            present = [graph.output(f"present.{i}.{part}", [1, heads, "rows", dim]) for part in ("key", "value")]
            normed = graph.norm(x, f"model.layers.{i}.input_layernorm.weight")
            key, value = (self.project(i, part, normed, heads) for part in ("k", "v"))
            if i == self.layers - 1:
                key, value = (graph.swap(graph.reshape(part, 1, -1, heads, dim)) for part in (key, value))
                graph.op("RotaryEmbedding", key, start, *self.angles, outputs=present[:1], domain=MICROSOFT)
                graph.op("Identity", value, outputs=present[1:])
                break
            query = graph.reshape(self.project(i, "q", normed, self.queries), 1, -1, self.queries * dim)
            key, value = (graph.reshape(part, 1, -1, heads * dim) for part in (key, value))
            attended = graph.op(
                "GroupQueryAttention",
                *(query, key, value, "", "", last, total, *self.angles),
                outputs=[f"attended.{i}", *present],
                domain=MICROSOFT,
                num_heads=self.queries,
                kv_num_heads=heads,
                do_rotary=1,
            )
            x = self.rest(i, x, attended)

    def decode(self):
        """The next token behind past rows, of which `mask` shows the filled ones; the new row's keys and values come out.

        GroupQueryAttention would write them in place, but a cache is its output and onnxruntime-node copies outputs.
        """
        graph, heads, dim, group = self.graph, self.heads, self.dim, self.queries // self.heads
        x = self.embed(1)
        position = graph.input("position", [1], INT64)
        mask = graph.input("mask", [1, 1, 1, "past and own"])
        new = {"key": [], "value": []}
        places = {"first": 0, "own": -1, "end": np.iinfo(np.int64).max, "columns": 3}
        first, own, end, columns = (graph.constant(name, np.array([at], np.int64)) for name, at in places.items())
        for i in range(self.layers):
            past_key = graph.input(f"past.{i}.key", [heads, 1, dim, "capacity"])
            past_value = graph.input(f"past.{i}.value", [heads, 1, "capacity", dim])
            normed = graph.norm(x, f"model.layers.{i}.input_layernorm.weight")

            def turned(part, count, scale=1):
                rows = graph.reshape(self.project(i, part, normed, count, scale), 1, count, 1, dim)
                return graph.op("RotaryEmbedding", rows, position, *self.angles, domain=MICROSOFT)

            query = graph.reshape(turned("q", self.queries, dim**-0.5), heads, group, 1, dim)
            key = graph.reshape(turned("k", heads), heads, 1, dim, 1)
            value = graph.reshape(self.project(i, "v", normed, heads), heads, 1, 1, dim)
            scores = [graph.op("MatMul", query, keys) for keys in (past_key, key)]
            scores = graph.op("Concat", *scores, axis=3)
            weights = graph.op("Softmax", graph.op("Add", scores, mask), axis=3)
            past = graph.op("MatMul", graph.op("Slice", weights, first, own, columns), past_value)
            itself = graph.op("Mul", graph.op("Slice", weights, own, end, columns), value)
            x = self.rest(i, x, graph.op("Add", past, itself))
            new["key"].append(key)
            new["value"].append(graph.reshape(value, heads, 1, dim, 1))
        for part, rows in new.items():
            graph.op("Concat", *rows, outputs=[graph.output(f"new.{part}", [self.layers * heads, 1, dim, 1])], axis=0)
        graph.op("Gemm", graph.norm(x, "model.norm.weight"), EMBEDDING, outputs=["logits"], transB=1)
        graph.op("ArgMax", "logits", outputs=[graph.output("token", [1], INT64)], axis=1, keepdims=0)
        graph.output("logits", [1, self.config["vocab_size"]])


def fusion():
    """Every layer's keys and values in one graph: the towers of eager.py."""
    graph = Graph(f"{folder}/fuser.safetensors")
    manifest = json.load(open(f"{folder}/fuser.json"))
    (heads, dim), (sharer_heads, sharer_dim) = (
        (manifest[side]["kvHeads"], manifest[side]["headDim"]) for side in ("receiver", "sharer")
    )
    for j in sorted({projector["sharerLayer"] for projector in manifest["projectors"]}):
        for part in ("key", "value"):
            graph.input(f"sharer.{j}.{part}", [1, sharer_heads, "rows", sharer_dim])
    for projector in manifest["projectors"]:
        for part in ("key", "value"):
            at = f"{projector['weights']}.{part}"

            def linear(x, name):
                return graph.linear(x, f"{at}_{name}.weight", graph.weight(f"{at}_{name}.bias"))

            def block(x, name):
                name = f"{at}_{name}.blocks.0"
                inner = graph.op("Gelu", graph.linear(graph.norm(x, f"{name}.norm.weight"), f"{name}.w1.weight"))
                return graph.linear(inner, f"{name}.w2.weight", x)

            row = projector["receiverLayer"]
            receiver = graph.input(f"receiver.{row}.{part}", [1, heads, "rows", dim])
            sharer = graph.swap(f"sharer.{projector['sharerLayer']}.{part}")
            sharer = graph.reshape(sharer, -1, sharer_heads * sharer_dim)
            both = graph.op("Concat", sharer, graph.reshape(graph.swap(receiver), -1, heads * dim), axis=1)
            x = block(linear(both, "in"), "mlp1")
            weight = graph.op("Sigmoid", linear(block(x, "scalar_mlp2"), "scalar_head"))
            projected = graph.reshape(linear(block(x, "proj_mlp2"), "proj_out"), 1, -1, heads, dim)
            change = graph.swap(graph.op("Mul", projected, graph.reshape(weight, 1, -1, heads, 1)))
            graph.op("Add", receiver, change, outputs=[graph.output(f"fused.{row}.{part}", [1, heads, "rows", dim])])
    return graph


if kind == "fusion":
    graph = fusion()
else:
    decoder = Decoder()
    decoder.prefill() if kind == "prefill" else decoder.decode()
    graph = decoder.graph
graph.save()
