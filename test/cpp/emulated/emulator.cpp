#include "emulator.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <exception>
#include <memory>
#include <new>
#include <optional>
#include <stdexcept>
#include <string>

#ifndef __x86_64__
#error "the emulator changes stacks as x86-64 does"
#endif

// Puts the running fiber's registers on its stack and its stack's place to `from`, and goes on at `to`.
extern "C" void c2c_emulated_switch(void** from, void* to);
asm(R"(
.text
.type c2c_emulated_switch, @function
c2c_emulated_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size c2c_emulated_switch, . - c2c_emulated_switch
)");

namespace emulated {

namespace {

constexpr unsigned kWarp = 32;
constexpr size_t kStack = size_t{1} << 17;

// Fibers that wait for each other.
struct Meeting {
  unsigned arrived = 0, number = 0;
};

struct Warp {
  Meeting meeting;
  unsigned living = kWarp;
  unsigned line = 0;
  std::vector<std::byte> slots[2] = {std::vector<std::byte>(kWarp * kLane), std::vector<std::byte>(kWarp* kLane)};
};

struct Fiber {
  unsigned index;
  void* stack_top;  // where its registers are while another runs
  const Meeting* waits_for = nullptr;
  unsigned number = 0;  // of the meeting that it waits for
  bool ended = false;
};

struct Block {
  const std::function<void()>* thread;
  std::vector<Fiber> fibers;
  std::vector<Warp> warps;
  Meeting all;
  unsigned living;
  std::byte* shared;
  std::exception_ptr failed;
};

// Stacks side by side, each with a page in front that nobody may touch.
class Stacks {
 public:
  // The end of a stack.
  std::byte* top(size_t index) const { return memory_ + (index + 1) * each_; }
  void make(size_t count) {
    if (held_ >= count) return;
    const auto page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
    each_ = kStack + page;
    void* made = ::mmap(nullptr, count * each_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (made == MAP_FAILED) throw std::bad_alloc();
    memory_ = static_cast<std::byte*>(made);  // fewer than before stay mapped: a program makes two or three kinds
    held_ = count;
    for (size_t i = 0; i < count; ++i) ::mprotect(memory_ + i * each_, page, PROT_NONE);
  }

 private:
  std::byte* memory_ = nullptr;
  size_t held_ = 0, each_ = 0;
};

Block* block = nullptr;
Fiber* running = nullptr;
void* scheduler = nullptr;  // its stack while a fiber runs
std::optional<Graph> captured;
Stacks stacks;
size_t blocks = 0, graphs = 0;  // so far
// Every other block runs its warps and lanes from the last to the first: what one thread reads of another's without
// waiting for it is not there in one of the two.
bool backwards() { return blocks % 2 == 1; }

bool can_run(const Fiber& fiber) {
  return !fiber.ended && (fiber.waits_for == nullptr || fiber.waits_for->number != fiber.number);
}

void go_on(Fiber& fiber, void** from) {
  fiber.waits_for = nullptr;
  running = &fiber;
  threadIdx = {fiber.index, 0, 0};
  c2c_emulated_switch(from, fiber.stack_top);
}

// Lets another lane of the warp run, in the block's order: the first that can, this one too, or the first behind this
// one. Where none can, another warp runs.
void leave(bool from_first) {
  Fiber& own = *running;
  Fiber* lanes = &block->fibers[own.index / kWarp * kWarp];
  const unsigned place = backwards() ? kWarp - 1 - own.index % kWarp : own.index % kWarp;
  for (unsigned i = from_first ? 0 : place + 1, n = 0; n < kWarp; ++i, ++n) {
    Fiber& next = lanes[backwards() ? kWarp - 1 - i % kWarp : i % kWarp];
    if (!can_run(next)) continue;
    if (&next != &own) go_on(next, &own.stack_top);
    return;
  }
  c2c_emulated_switch(&own.stack_top, scheduler);
}

void begin() {
  try {
    (*block->thread)();
  } catch (...) {
    if (!block->failed) block->failed = std::current_exception();
  }
  running->ended = true;
  --block->warps[running->index / kWarp].living;
  --block->living;
  // Those that wait for the whole block do not wait for who has ended.
  if (block->all.arrived > 0 && block->all.arrived >= block->living) {
    block->all.arrived = 0;
    ++block->all.number;
  }
  leave(false);
}

void prepare(Fiber& fiber, std::byte* stack_top) {
  auto** top = reinterpret_cast<void**>(stack_top) - 1;  // aligned as behind a call
  *--top = reinterpret_cast<void*>(&begin);
  for (int i = 0; i < 6; ++i) *--top = nullptr;
  fiber.stack_top = top;
}

// Waits until `count` fibers are here. Who comes last is not the first to go on: that order, too, is the block's own.
void meet(Meeting& meeting, unsigned count) {
  if (++meeting.arrived >= count) {
    meeting.arrived = 0;
    ++meeting.number;
    if (&meeting == &block->all) return c2c_emulated_switch(&running->stack_top, scheduler);
    return leave(true);
  }
  running->waits_for = &meeting;
  running->number = meeting.number;
  leave(false);
}

void run_block() {
  const size_t count = block->fibers.size();
  while (block->living > 0 && !block->failed) {
    size_t i = 0;
    while (i < count && !can_run(block->fibers[backwards() ? count - 1 - i : i])) ++i;
    if (i == count) throw std::logic_error("threads of a block wait for ever");
    go_on(block->fibers[backwards() ? count - 1 - i : i], &scheduler);
  }
  if (block->failed) std::rethrow_exception(block->failed);
}

}  // namespace

void run(dim3 grid, dim3 size, size_t shared, const std::function<void()>& thread) {
  if (size.y != 1 || size.z != 1 || size.x % kWarp != 0) throw std::logic_error("blocks are rows of whole warps here");
  stacks.make(size.x);
  Block own;
  own.thread = &thread;
  own.fibers.resize(size.x);
  own.warps.resize(size.x / kWarp);
  const auto free_shared = [](std::byte* at) { ::operator delete(at, std::align_val_t(16)); };
  const std::unique_ptr<std::byte, decltype(free_shared)> memory(
      static_cast<std::byte*>(::operator new(shared, std::align_val_t(16))), free_shared);
  own.shared = memory.get();
  block = &own;
  gridDim = grid;
  blockDim = size;
  for (blockIdx.z = 0; blockIdx.z < grid.z; ++blockIdx.z)
    for (blockIdx.y = 0; blockIdx.y < grid.y; ++blockIdx.y)
      for (blockIdx.x = 0; blockIdx.x < grid.x; ++blockIdx.x) {
        own.living = size.x;
        own.all = {};
        for (Warp& warp : own.warps) warp.meeting = {}, warp.living = kWarp, warp.line = 0;
        std::memset(own.shared, 0xff, shared);
        for (unsigned i = 0; i < size.x; ++i) {
          own.fibers[i] = {.index = i, .stack_top = nullptr};
          prepare(own.fibers[i], stacks.top(i));
        }
        run_block();
        ++blocks;
      }
}

void* dynamic_shared() { return block->shared; }

void sync_block() { meet(block->all, block->living); }

Lanes exchange(const void* own, size_t bytes, unsigned line) {
  if (bytes > kLane) throw std::logic_error("a lane gives too much");
  const unsigned lane = running->index % kWarp;
  Warp& warp = block->warps[running->index / kWarp];
  if (warp.living < kWarp) throw std::logic_error("a lane of an exchanging warp has ended");
  if (warp.meeting.arrived == 0) warp.line = line;
  if (warp.line != line) throw std::logic_error("lanes of a warp exchange values at different places");
  std::vector<std::byte>& slots = warp.slots[warp.meeting.number % 2];
  if (bytes > 0) std::memcpy(slots.data() + lane * kLane, own, bytes);
  meet(warp.meeting, kWarp);
  return {slots.data()};
}

void submit(std::function<void()> launch) {
  if (captured) {
    captured->push_back(std::move(launch));
  } else {
    launch();
  }
}

void begin_capture() { captured.emplace(); }

bool capturing() { return captured.has_value(); }

void play(const Graph& graph) {
  if (captured) throw std::logic_error("a graph is launched while another is captured");
  for (const auto& launch : graph) launch();
  ++graphs;
}

size_t played() { return graphs; }

Graph end_capture() {
  Graph graph = std::move(*captured);
  captured.reset();
  return graph;
}

}  // namespace emulated
