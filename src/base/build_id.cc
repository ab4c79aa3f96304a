#include "base/build_id.h"

#include <elf.h>
#include <link.h>

#include <cstring>
#include <string_view>

namespace fd {
namespace {

// The first object is the program itself.
int ReadNotes(dl_phdr_info* info, size_t, void* out) {
  for (int i = 0; i < info->dlpi_phnum; ++i) {
    const ElfW(Phdr)& segment = info->dlpi_phdr[i];
    if (segment.p_type != PT_NOTE) continue;
    const char* note = reinterpret_cast<const char*>(info->dlpi_addr + segment.p_vaddr);
    const char* const end = note + segment.p_memsz;
    while (note + sizeof(ElfW(Nhdr)) <= end) {
      ElfW(Nhdr) header;
      std::memcpy(&header, note, sizeof(header));
      const auto padded = [](size_t bytes) { return (bytes + 3) / 4 * 4; };
      const char* const name = note + sizeof(header);
      const char* const value = name + padded(header.n_namesz);
      if (header.n_type == NT_GNU_BUILD_ID && std::string_view(name, header.n_namesz).starts_with("GNU")) {
        static_cast<std::string*>(out)->assign(value, header.n_descsz);
        return 1;
      }
      note = value + padded(header.n_descsz);
    }
  }
  return 1;
}

}  // namespace

std::string BuildId() {
  std::string bytes, text;
  dl_iterate_phdr(ReadNotes, &bytes);
  for (const char byte : bytes) {
    for (const int shift : {4, 0}) text.push_back("0123456789abcdef"[byte >> shift & 15]);
  }
  return text;
}

}  // namespace fd
