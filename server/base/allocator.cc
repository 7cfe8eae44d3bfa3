// Linked into a program, this makes jemalloc its allocator. For clients: what their callers' threads
// allocate for each message, the threads that write and read free. Figures: docs/adr/0011.
#include <jemalloc/jemalloc.h>

// jemalloc reads it when it is first used. Its own threads give pages back that were free for a
// second; by default they would be kept until somebody allocates.
extern "C" {
[[gnu::visibility("default"), gnu::used]] const char* malloc_conf =
    "background_thread:true,dirty_decay_ms:1000,muzzy_decay_ms:0";
}
