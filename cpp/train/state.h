// What a trainer keeps between steps, in and out of tensor tables.
#pragma once
#include <string>
#include <unordered_map>

#include "train/adamw.h"
#include "train/parameters.h"

namespace c2c {

// Fills every weight from the tensor of its name. SHAPE_MISMATCH for a missing, extra or mis-shaped one.
void load_weights(Parameters& parameters, const std::unordered_map<std::string, at::Tensor>& tensors);
// The same from "value/NAME", and the optimiser's moments from "first/NAME" and "second/NAME".
void restore_state(Parameters& parameters, AdamW& optimizer, int64_t steps,
                   const std::unordered_map<std::string, at::Tensor>& tensors);
// One tensor of the state: "value", "gradient", "first" or "second" of a parameter.
at::Tensor state_tensor(const Parameters& parameters, const AdamW& optimizer, const std::string& part,
                        const std::string& name);

}  // namespace c2c
