// USBGuard's rule evaluation, as the peer of `cargo bench -p bulkhead-policy-tools`: reads rules and then devices in USBGuard's own language, one a line,
// an empty line between them, and prints how many decisions a second its first-match evaluation makes.
//
// g++ -O2 -std=c++17 $(pkg-config --cflags libusbguard) usbguard.cpp -o usbguard $(pkg-config --libs libusbguard)
#include <MemoryRuleSet.hpp>
#include <Rule.hpp>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

int main()
{
  usbguard::MemoryRuleSet rules(nullptr);
  std::vector<std::shared_ptr<const usbguard::Rule>> devices;
  std::string line;
  while (std::getline(std::cin, line) && !line.empty()) {
    rules.appendRule(usbguard::Rule::fromString(line));
  }
  while (std::getline(std::cin, line) && !line.empty()) {
    devices.push_back(std::make_shared<usbguard::Rule>(usbguard::Rule::fromString(line)));
  }
  std::vector<double> rates;
  for (int round = 0; round < 9; ++round) {
    const auto start = std::chrono::steady_clock::now();
    double seconds = 0;
    size_t decided = 0;
    while (seconds < 0.06) {
      for (const auto& device : devices) {
        // The implicit default at the end of the list counts as a decision too, as it does with us.
        volatile bool found = rules.getFirstMatchingRule(device) != nullptr;
        (void)found;
        ++decided;
        seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
        if (seconds >= 0.06) {
          break;
        }
      }
    }
    rates.push_back(decided / seconds);
  }
  std::sort(rates.begin(), rates.end());
  std::printf("%.0f\n", rates[rates.size() / 2]);
}
