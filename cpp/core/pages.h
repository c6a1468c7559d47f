// Memory in large pages, and memory that is not needed any more.
#pragma once
#include <cstddef>

namespace c2c {

constexpr size_t kLargePage = size_t{2} << 20;

// Asks for large pages under memory that is about to be written whole: one fault for 2 MB instead of one for 4 KB, and
// fewer walks when it is read. Smaller memory than two of them is left as it is; a refusal costs speed alone.
void ask_for_large_pages(void* memory, size_t bytes);

// Gives pages that were freed, and that the C library keeps for what comes next, back to the system (glibc; elsewhere
// nothing happens). For the end of work that happens once and frees much, like loading.
void give_back_freed();

}  // namespace c2c
