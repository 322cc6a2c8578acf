/*
 * The public functions about processes.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "introspect/internal.h"

typedef struct TaskList {
    PandaTask *out;
    uint64_t room, n;
} TaskList;

static bool add_task(uint64_t task, void *opaque)
{
    TaskList *list = opaque;
    PandaTask one;

    if (os_fill_task(task, &one)) {
        if (list->n < list->room) {
            list->out[list->n] = one;
        }
        list->n++;
    }
    return true;
}

static int no_task(uint64_t address)
{
    return panda_fail(PANDA_ERR_OS, "there is no process or thread with a "
                      "task_struct at 0x%" PRIx64 ": it may have ended",
                      address);
}

int panda_os_current(PandaTask *task)
{
    OS_LOCK_GUARD();
    int status = os_require();
    uint64_t address;

    if (status != PANDA_OK) {
        return status;
    }
    address = panda_os_current_task(panda_vcpu.cs);
    if (!address || !os_fill_task(address, task)) {
        const char *lacks = panda_os_current_lacks(panda_vcpu.cs);

        return panda_fail(PANDA_ERR_OS, "which thread runs is not known%s%s",
                          lacks ? ": of the guest's kernel it is not known "
                          : " at this moment", lacks ?: "");
    }
    return PANDA_OK;
}

int panda_os_task(uint64_t address, PandaTask *task)
{
    OS_LOCK_GUARD();
    int status = os_require();

    if (status != PANDA_OK) {
        return status;
    }
    return os_is_task(address) && os_fill_task(address, task)
        ? PANDA_OK : no_task(address);
}

int64_t panda_os_processes(PandaTask *tasks, uint64_t n)
{
    OS_LOCK_GUARD();
    TaskList list = { tasks, n };
    int status = os_require();

    if (status != PANDA_OK) {
        return status;
    }
    return os_for_each_process(add_task, &list) ? (int64_t)list.n
        : panda_fail(PANDA_ERR_OS, "the guest's list of processes is broken "
                     "after %" PRIu64, list.n);
}

int64_t panda_os_threads(uint64_t task, PandaTask *tasks, uint64_t n)
{
    OS_LOCK_GUARD();
    TaskList list = { tasks, n };
    int status = os_require();

    if (status != PANDA_OK) {
        return status;
    }
    if (!os_is_task(task)) {
        return no_task(task);
    }
    return os_for_each_thread(task, add_task, &list) ? (int64_t)list.n
        : panda_fail(PANDA_ERR_OS, "the process' list of threads is broken "
                     "after %" PRIu64, list.n);
}

/* ---- memory ---- */

uint64_t os_mm_of(uint64_t task, int *status)
{
    uint64_t mm;

    *status = os_require();
    if (*status != PANDA_OK) {
        return 0;
    }
    if (!os_is_task(task)) {
        *status = no_task(task);
        return 0;
    }
    if (!os_get_word(task, OS_TASK_MM, &mm) || !mm) {
        *status = panda_fail(PANDA_ERR_OS, "it has no memory of its own: a "
                             "thread of the kernel, or a process that has "
                             "ended");
        return 0;
    }
    return mm;
}

typedef struct MappingList {
    PandaMapping *out;
    uint64_t room, n, mm, last;
    bool broken;
    /* The one that is looked for. */
    bool by_address, hit;
    uint64_t address;
} MappingList;

static bool add_mapping(uint64_t vma, void *opaque)
{
    MappingList *list = opaque;
    PandaMapping m = { .vma = vma };
    uint64_t pages = 0, mm;

    if (!os_get_word(vma, OS_VMA_START, &m.start)
        || !os_get_word(vma, OS_VMA_END, &m.end) || m.start >= m.end
        || m.start < list->last
        || (os_get_word(vma, OS_VMA_MM, &mm) && mm != list->mm)) {
        list->broken = true;
        return false;
    }
    list->last = m.end;
    os_get_word(vma, OS_VMA_FLAGS, &m.flags);
    os_get_word(vma, OS_VMA_FILE, &m.file);
    os_get_word(vma, OS_VMA_PGOFF, &pages);
    m.offset = m.file ? pages * os_page_size() : 0;
    if (list->by_address) {
        list->hit = list->address >= m.start && list->address < m.end;
        list->out[0] = m;
        return !list->hit && list->address >= m.end;
    }
    if (list->n < list->room) {
        list->out[list->n] = m;
    }
    list->n++;
    return true;
}

int64_t panda_os_mappings(uint64_t task, PandaMapping *mappings, uint64_t n)
{
    OS_LOCK_GUARD();
    MappingList list = { .out = mappings, .room = n };
    int status;

    list.mm = os_mm_of(task, &status);
    if (!list.mm) {
        return status;
    }
    return os_for_each_mapping(list.mm, add_mapping, &list) && !list.broken
        ? (int64_t)list.n
        : panda_fail(PANDA_ERR_OS, "the process' map of its memory is broken "
                     "after %" PRIu64 " entries", list.n);
}

int panda_os_mapping_at(uint64_t task, uint64_t address,
                        PandaMapping *mapping)
{
    OS_LOCK_GUARD();
    MappingList list = {
        .out = mapping, .by_address = true, .address = address,
    };
    int status;

    list.mm = os_mm_of(task, &status);
    if (!list.mm) {
        return status;
    }
    os_for_each_mapping(list.mm, add_mapping, &list);
    return list.hit ? PANDA_OK
        : panda_fail(PANDA_ERR_OS, "nothing is mapped at 0x%" PRIx64,
                     address);
}

int panda_os_memory(uint64_t task, PandaProcessMemory *memory)
{
    OS_LOCK_GUARD();
    int status;
    uint64_t mm = os_mm_of(task, &status);

    *memory = (PandaProcessMemory) {};
    if (!mm) {
        return status;
    }
    os_get_word(mm, OS_MM_START_BRK, &memory->start_brk);
    os_get_word(mm, OS_MM_BRK, &memory->brk);
    os_get_word(mm, OS_MM_START_STACK, &memory->start_stack);
    os_get_word(mm, OS_MM_ARG_START, &memory->arg_start);
    os_get_word(mm, OS_MM_ARG_END, &memory->arg_end);
    os_get_word(mm, OS_MM_ENV_START, &memory->env_start);
    os_get_word(mm, OS_MM_ENV_END, &memory->env_end);
    return PANDA_OK;
}

int64_t panda_os_read(uint64_t task, uint64_t address, uint8_t *buf,
                      uint64_t len)
{
    OS_LOCK_GUARD();
    int status;
    uint64_t mm = os_mm_of(task, &status), pgd;

    if (!mm) {
        return status;
    }
    return os_get_word(mm, OS_MM_PGD, &pgd)
        ? (int64_t)os_read_user(pgd, address, buf, len) : 0;
}

/* ---- files ---- */

static bool fill_file(uint64_t table, int32_t fd, PandaOpenFile *out)
{
    uint64_t file;

    if (!os_read_word(table + (uint64_t)fd * os_memory.word, &file)
        || !os_is_kernel(file)) {
        return false;
    }
    *out = (PandaOpenFile) { .file = file & -(uint64_t)os_memory.word,
                             .fd = fd };
    os_get_u64(out->file, OS_FILE_POS, &out->pos);
    os_get_u32(out->file, OS_FILE_FLAGS, &out->flags);
    return true;
}

bool os_file_table(uint64_t task, uint64_t *table, uint32_t *n)
{
    uint64_t files, fdt;

    return os_get_word(task, OS_TASK_FILES, &files) && files
        && os_get_word(files, OS_FILES_FDT, &fdt)
        && os_get_u32(fdt, OS_FDT_MAX, n)
        && os_get_word(fdt, OS_FDT_FD, table);
}

/* The table of open files of a task and how many fit; 0: none. */
static uint64_t file_table(uint64_t task, uint32_t *n, int *status)
{
    uint64_t table;

    *status = os_require();
    if (*status != PANDA_OK) {
        return 0;
    }
    if (!os_is_task(task)) {
        *status = no_task(task);
        return 0;
    }
    if (!os_file_table(task, &table, n)) {
        *status = panda_fail(PANDA_ERR_OS, "its open files cannot be read");
        return 0;
    }
    *n = MIN(*n, OS_MAX_FILES);
    return table;
}

int64_t panda_os_files(uint64_t task, PandaOpenFile *files, uint64_t n)
{
    OS_LOCK_GUARD();
    uint32_t slots;
    int status;
    uint64_t table = file_table(task, &slots, &status), found = 0;

    if (!table) {
        return status;
    }
    for (uint32_t fd = 0; fd < slots; fd++) {
        PandaOpenFile one;

        if (fill_file(table, fd, &one)) {
            if (found < n) {
                files[found] = one;
            }
            found++;
        }
    }
    return found;
}

int panda_os_file(uint64_t task, int32_t fd, PandaOpenFile *file)
{
    OS_LOCK_GUARD();
    uint32_t slots;
    int status;
    uint64_t table = file_table(task, &slots, &status);

    if (!table) {
        return status;
    }
    return fd >= 0 && fd < slots && fill_file(table, fd, file) ? PANDA_OK
        : panda_fail(PANDA_ERR_OS, "it has no file open as %d", fd);
}

int64_t panda_os_file_path(uint64_t file, char *path, uint64_t size)
{
    OS_LOCK_GUARD();
    int status = os_require();

    if (status != PANDA_OK) {
        return status;
    }
    return size && os_file_path(file, path, size) ? (int64_t)strlen(path)
        : panda_fail(PANDA_ERR_OS, "there is no open file at 0x%" PRIx64,
                     file);
}

/* The mapping that is executed first is of the program, if nothing says it. */
static bool find_program(uint64_t vma, void *opaque)
{
    uint64_t flags, file;

    if (os_get_word(vma, OS_VMA_FLAGS, &flags) && flags & 4
        && os_get_word(vma, OS_VMA_FILE, &file) && file) {
        *(uint64_t *)opaque = file;
        return false;
    }
    return true;
}

int64_t panda_os_exe(uint64_t task, char *path, uint64_t size)
{
    OS_LOCK_GUARD();
    int status;
    uint64_t mm = os_mm_of(task, &status), file = 0;

    if (!mm) {
        return status;
    }
    if (!os_get_word(mm, OS_MM_EXE_FILE, &file) || !file) {
        os_for_each_mapping(mm, find_program, &file);
    }
    return panda_os_file_path(file, path, size);
}

/* ---- modules ---- */

static void fill_module(uint64_t module, PandaModule *out)
{
    uint32_t size = 0;

    *out = (PandaModule) { .module = module };
    if (os_knows(OS_MODULE_NAME)) {
        os_read_string(module + os_offset(OS_MODULE_NAME), out->name,
                       sizeof(out->name));
    }
    if (os_knows(OS_MODULE_MEM)) {
        for (unsigned i = 0; i < MIN(os_layout.module_memory_count, 16); i++) {
            uint64_t part = module + os_offset(OS_MODULE_MEM)
                + i * os_layout.module_memory_size;

            if (!i) {
                os_get_word(part, OS_MODULE_MEM_BASE, &out->base);
            }
            os_get_u32(part, OS_MODULE_MEM_SIZE, &size);
            out->size += size;
        }
    } else {
        os_get_word(module, OS_MODULE_CORE_BASE, &out->base);
        os_get_u32(module, OS_MODULE_CORE_SIZE, &size);
        out->size = size;
    }
}

typedef struct ModuleList {
    PandaModule *out;
    uint64_t room, n;
} ModuleList;

static bool add_module(uint64_t module, void *opaque)
{
    ModuleList *list = opaque;

    if (list->n < list->room) {
        fill_module(module, &list->out[list->n]);
    }
    return ++list->n < OS_MAX_MODULES;
}

int64_t panda_os_modules(PandaModule *modules, uint64_t n)
{
    OS_LOCK_GUARD();
    ModuleList list = { modules, n };
    int status = os_require();
    uint64_t head;

    if (status != PANDA_OK) {
        return status;
    }
    if (!os_modules_head(&head, true)) {
        return panda_fail(PANDA_ERR_OS, "the guest's kernel does not show "
                          "its list of modules: it has no symbols of data "
                          "(KALLSYMS_ALL), and no module is loaded by which "
                          "it could be found");
    }
    return os_for_each_node(head, os_offset(OS_MODULE_LIST), add_module, &list)
        ? (int64_t)list.n
        : panda_fail(PANDA_ERR_OS, "the guest's list of modules is broken "
                     "after %" PRIu64, list.n);
}
