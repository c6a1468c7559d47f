// The kernels' files, one line each; each uses those before it, so that they are not sorted. Where KERNEL is a macro, a
// file only says what it offers, KERNEL(name, arguments): kernels.h makes the table's columns of it, and table.inl a
// row.
// clang-format off
#include "kernels/cpu/finish.inl"
#include "kernels/cpu/panel.inl"
#include "kernels/cpu/codes.inl"
#include "kernels/cpu/product.inl"
#include "kernels/cpu/rows.inl"
#include "kernels/cpu/restore.inl"
#include "kernels/cpu/pack.inl"
#include "kernels/cpu/scores.inl"
#include "kernels/cpu/attention.inl"
#include "kernels/cpu/tiles.inl"
// clang-format on
