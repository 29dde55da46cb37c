#include <device/warpgroup.h>

#include <deque>
#include <map>
#include <utility>
#include <vector>

namespace fusegen::device::detail {
namespace {

using Groups = std::deque<std::vector<WarpgroupProduct>>;

Groups& groups_of_lane() {
  static std::map<std::pair<int, int>, Groups> all;
  static int launch = 0;  // that these are of: one that was stuck leaves some behind
  if (launch != simt::launches()) all.clear();
  launch = simt::launches();
  Groups& groups = all[{block(), thread()}];
  if (groups.empty()) groups.emplace_back();
  return groups;
}

}  // namespace

void ask_for(const WarpgroupProduct& product) { groups_of_lane().back().push_back(product); }

void close_group() { groups_of_lane().emplace_back(); }

void form_groups(size_t open) {
  Groups& groups = groups_of_lane();
  if (!groups.back().empty()) throw simt::Stuck("products are waited for whose group is not closed");
  for (; groups.size() > open + 1; groups.pop_front())
    for (const WarpgroupProduct& p : groups.front()) p.form(p);
}

}  // namespace fusegen::device::detail
