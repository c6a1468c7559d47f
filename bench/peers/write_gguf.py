"""Writes a Qwen3 folder as a GGUF file for llama.cpp: `write_gguf.py FOLDER OUT KIND`, KIND of BF16, Q8_0, Q4_0."""
import json
import sys

import gguf
from safetensors import safe_open

folder, out, kind = sys.argv[1:4]
config = json.load(open(f"{folder}/config.json"))
layers, vocab = config["num_hidden_layers"], config["vocab_size"]
writer = gguf.GGUFWriter(out, "qwen3")
writer.add_file_type(gguf.LlamaFileType[f"MOSTLY_{kind}"])
writer.add_block_count(layers)
writer.add_context_length(config["max_position_embeddings"])
writer.add_embedding_length(config["hidden_size"])
writer.add_feed_forward_length(config["intermediate_size"])
writer.add_head_count(config["num_attention_heads"])
writer.add_head_count_kv(config["num_key_value_heads"])
writer.add_key_length(config["head_dim"])
writer.add_value_length(config["head_dim"])
writer.add_rope_freq_base(float(config["rope_theta"]))
writer.add_layer_norm_rms_eps(config["rms_norm_eps"])

# A stand-in vocabulary: only ids are fed. Bytes first, as llama.cpp's byte-level tokenizers want them.
printable = [b for b in range(256) if 33 <= b <= 126 or 161 <= b <= 172 or b >= 174]
hidden = [b for b in range(256) if b not in printable]
letters = [chr(b) if b in printable else chr(256 + hidden.index(b)) for b in range(256)]
tokens = letters + ["th", "he", "in"] + [f"<t{i}>" for i in range(259, vocab - 1)] + ["<|endoftext|>"]
writer.add_tokenizer_model("gpt2")
writer.add_tokenizer_pre("qwen2")
writer.add_token_list(tokens)
writer.add_token_types([1] * (vocab - 1) + [3])
writer.add_token_merges(["t h", "h e", "i n"])
writer.add_bos_token_id(vocab - 1)
writer.add_eos_token_id(vocab - 1)
writer.add_pad_token_id(vocab - 1)
writer.add_add_bos_token(False)

names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN3, layers)
with safe_open(f"{folder}/model.safetensors", "pt") as file:  # numpy has no bfloat16
    for name in file.keys():
        values = file.get_tensor(name).float().numpy()
        # Norms stay float32; the head is tied, llama.cpp takes the embedding.
        quant = gguf.GGMLQuantizationType.F32 if values.ndim == 1 else gguf.GGMLQuantizationType[kind]
        data = gguf.quants.quantize(values, quant)
        writer.add_tensor(names.get_name(name, try_suffixes=(".weight",)), data, raw_dtype=quant)
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()
