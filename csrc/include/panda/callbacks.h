/*
 * The callback kinds of the core and their registration.
 *
 * Order and numbers are PANDA's. A kind is added by one enum member, one line
 * in each of the two unions and a hook point in csrc/core.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PANDA_CALLBACKS_H
#define PANDA_CALLBACKS_H

#include "panda/cpu.h"
#include "panda/types.h"

/** The kinds of callbacks. */
typedef enum panda_cb_type {
    PANDA_CB_BEFORE_BLOCK_TRANSLATE = 0,
    PANDA_CB_AFTER_BLOCK_TRANSLATE = 1,
    PANDA_CB_BEFORE_BLOCK_EXEC_INVALIDATE_OPT = 2,
    PANDA_CB_BEFORE_TCG_CODEGEN = 3,
    PANDA_CB_BEFORE_BLOCK_EXEC = 4,
    PANDA_CB_AFTER_BLOCK_EXEC = 5,
    PANDA_CB_INSN_TRANSLATE = 6,
    PANDA_CB_INSN_EXEC = 7,
    PANDA_CB_AFTER_INSN_TRANSLATE = 8,
    PANDA_CB_AFTER_INSN_EXEC = 9,
    PANDA_CB_VIRT_MEM_BEFORE_READ = 10,
    PANDA_CB_VIRT_MEM_BEFORE_WRITE = 11,
    PANDA_CB_PHYS_MEM_BEFORE_READ = 12,
    PANDA_CB_PHYS_MEM_BEFORE_WRITE = 13,
    PANDA_CB_VIRT_MEM_AFTER_READ = 14,
    PANDA_CB_VIRT_MEM_AFTER_WRITE = 15,
    PANDA_CB_PHYS_MEM_AFTER_READ = 16,
    PANDA_CB_PHYS_MEM_AFTER_WRITE = 17,
    PANDA_CB_MMIO_AFTER_READ = 18,
    PANDA_CB_MMIO_BEFORE_WRITE = 19,
    PANDA_CB_HD_READ = 20,
    PANDA_CB_HD_WRITE = 21,
    PANDA_CB_GUEST_HYPERCALL = 22,
    PANDA_CB_MONITOR = 23,
    PANDA_CB_QMP = 24,
    PANDA_CB_CPU_RESTORE_STATE = 25,
    PANDA_CB_BEFORE_LOADVM = 26,
    PANDA_CB_ASID_CHANGED = 27,
    PANDA_CB_REPLAY_HD_TRANSFER = 28,
    PANDA_CB_REPLAY_NET_TRANSFER = 29,
    PANDA_CB_REPLAY_SERIAL_RECEIVE = 30,
    PANDA_CB_REPLAY_SERIAL_READ = 31,
    PANDA_CB_REPLAY_SERIAL_SEND = 32,
    PANDA_CB_REPLAY_SERIAL_WRITE = 33,
    PANDA_CB_REPLAY_BEFORE_DMA = 34,
    PANDA_CB_REPLAY_AFTER_DMA = 35,
    PANDA_CB_REPLAY_HANDLE_PACKET = 36,
    PANDA_CB_AFTER_CPU_EXEC_ENTER = 37,
    PANDA_CB_BEFORE_CPU_EXEC_EXIT = 38,
    PANDA_CB_AFTER_MACHINE_INIT = 39,
    PANDA_CB_AFTER_LOADVM = 40,
    PANDA_CB_TOP_LOOP = 41,
    PANDA_CB_DURING_MACHINE_INIT = 42,
    PANDA_CB_MAIN_LOOP_WAIT = 43,
    PANDA_CB_PRE_SHUTDOWN = 44,
    PANDA_CB_UNASSIGNED_IO_READ = 45,
    PANDA_CB_UNASSIGNED_IO_WRITE = 46,
    PANDA_CB_BEFORE_HANDLE_EXCEPTION = 47,
    PANDA_CB_BEFORE_HANDLE_INTERRUPT = 48,
    PANDA_CB_START_BLOCK_EXEC = 49,
    PANDA_CB_END_BLOCK_EXEC = 50,
    /** Number of callback kinds. */
    PANDA_CB_LAST = 51,
} panda_cb_type;

/** A callback function, one member per kind. */
typedef union panda_cb {
    /** A block at pc is about to be translated. */
    void (*before_block_translate)(PandaCPU *env, target_ptr_t pc);
    /**
     * A block has been translated.
     *
     * size and icount of tb are known.
     */
    void (*after_block_translate)(PandaCPU *env, PandaTB *tb);
    /**
     * A block is about to run; true throws its translation away first.
     *
     * The block is translated again and then runs; the callback is not asked
     * again for it. Results of all callbacks are or-ed.
     */
    bool (*before_block_exec_invalidate_opt)(PandaCPU *env, PandaTB *tb);
    /** A block was lifted to TCG operations; host code is made next. */
    void (*before_tcg_codegen)(PandaCPU *env, PandaTB *tb);
    /**
     * A block is about to run.
     *
     * Every block of a chain is seen. panda_exit_cpu_loop() in the callback
     * leaves the execution loop without running the block.
     */
    void (*before_block_exec)(PandaCPU *env, PandaTB *tb);
    /**
     * A block has run.
     *
     * exitCode 0 or 1: it completed; 3: it was left early (exception or exit
     * request).
     */
    void (*after_block_exec)(PandaCPU *env, PandaTB *tb, uint8_t exitCode);
    /**
     * The instruction at pc is about to be translated; true selects it for insn_exec.
     *
     * Results of all callbacks are or-ed.
     */
    bool (*insn_translate)(PandaCPU *env, target_ptr_t pc);
    /**
     * A selected instruction is about to run.
     *
     * The result is ignored.
     */
    int (*insn_exec)(PandaCPU *env, target_ptr_t pc);
    /**
     * An instruction was translated; pc is the next one. True selects it for after_insn_exec.
     *
     * Results of all callbacks are or-ed.
     */
    bool (*after_insn_translate)(PandaCPU *env, target_ptr_t pc);
    /**
     * A selected instruction has run; pc is the next one.
     *
     * Not raised for instructions that end a block by a jump. The result is
     * ignored.
     */
    int (*after_insn_exec)(PandaCPU *env, target_ptr_t pc);
    /** The guest is about to read memory; addr is virtual. */
    void (*virt_mem_before_read)(PandaCPU *env, target_ptr_t pc,
                                 target_ptr_t addr, size_t size);
    /**
     * The guest is about to write memory; addr is virtual.
     *
     * buf holds a copy of the value.
     */
    void (*virt_mem_before_write)(PandaCPU *env, target_ptr_t pc,
                                  target_ptr_t addr, size_t size, uint8_t *buf);
    /** The guest is about to read memory; addr is physical. */
    void (*phys_mem_before_read)(PandaCPU *env, target_ptr_t pc,
                                 target_ptr_t addr, size_t size);
    /**
     * The guest is about to write memory; addr is physical.
     *
     * buf holds a copy of the value.
     */
    void (*phys_mem_before_write)(PandaCPU *env, target_ptr_t pc,
                                  target_ptr_t addr, size_t size, uint8_t *buf);
    /**
     * The guest has read memory; addr is virtual.
     *
     * buf holds a copy of the value.
     */
    void (*virt_mem_after_read)(PandaCPU *env, target_ptr_t pc,
                                target_ptr_t addr, size_t size, uint8_t *buf);
    /**
     * The guest has written memory; addr is virtual.
     *
     * buf holds a copy of the value.
     */
    void (*virt_mem_after_write)(PandaCPU *env, target_ptr_t pc,
                                 target_ptr_t addr, size_t size, uint8_t *buf);
    /**
     * The guest has read memory; addr is physical.
     *
     * buf holds a copy of the value.
     */
    void (*phys_mem_after_read)(PandaCPU *env, target_ptr_t pc,
                                target_ptr_t addr, size_t size, uint8_t *buf);
    /**
     * The guest has written memory; addr is physical.
     *
     * buf holds a copy of the value.
     */
    void (*phys_mem_after_write)(PandaCPU *env, target_ptr_t pc,
                                 target_ptr_t addr, size_t size, uint8_t *buf);
    /**
     * The CPU has read device memory.
     *
     * *val is the number as a load of the guest's byte order gives it; what it
     * is changed to is what the guest gets.
     */
    void (*mmio_after_read)(PandaCPU *env, target_ptr_t physaddr,
                            target_ptr_t vaddr, size_t size, uint64_t *val);
    /**
     * The CPU is about to write device memory.
     *
     * *val is the number as a store of the guest's byte order has it; what it
     * is changed to is what the device gets.
     */
    void (*mmio_before_write)(PandaCPU *env, target_ptr_t physaddr,
                              target_ptr_t vaddr, size_t size, uint64_t *val);
    /** Declared by PANDA, never raised. */
    void (*hd_read)(PandaCPU *env);
    /** Declared by PANDA, never raised. */
    void (*hd_write)(PandaCPU *env);
    /**
     * The guest executes the hypercall instruction; true: handled, skip its normal effect.
     *
     * Results of all callbacks are or-ed. docs/callbacks.md has the instruction
     * of each architecture.
     */
    bool (*guest_hypercall)(PandaCPU *env);
    /**
     * Monitor command "plugin_cmd <cmd>".
     *
     * cmd is the unparsed text. The result is ignored.
     */
    int (*monitor)(Monitor *mon, const char *cmd);
    /**
     * A QMP command nobody knows; true: handled.
     *
     * args is the JSON text of the arguments. *result is to point to the JSON
     * text of the answer, which is copied when the callback has returned; if it
     * is left NULL the answer is an empty object. Results of all callbacks are
     * or-ed; the first answer counts.
     */
    bool (*qmp)(char *command, char *args, char **result);
    /** The CPU state is being restored from host code (fault or exception unwinding). */
    void (*cpu_restore_state)(PandaCPU *env, PandaTB *tb);
    /** Historic: registering it is an error. */
    int (*before_loadvm)(void);
    /**
     * The guest writes its address space register; true prevents the change.
     *
     * Also raised when the value is the same. Results of all callbacks are or-
     * ed.
     */
    bool (*asid_changed)(PandaCPU *env, target_ptr_t oldval,
                         target_ptr_t newval);
    /** Replay: a disk transfer. */
    void (*replay_hd_transfer)(PandaCPU *env, uint32_t type,
                               target_ptr_t src_addr, target_ptr_t dest_addr,
                               size_t num_bytes);
    /** Replay: a transfer inside the network card. */
    void (*replay_net_transfer)(PandaCPU *env, uint32_t type,
                                uint64_t src_addr, uint64_t dest_addr,
                                size_t num_bytes);
    /** Replay: a byte entered the receive FIFO. */
    void (*replay_serial_receive)(PandaCPU *env, target_ptr_t fifo_addr,
                                  uint8_t value);
    /** Replay: the guest read a byte from the receive FIFO. */
    void (*replay_serial_read)(PandaCPU *env, target_ptr_t fifo_addr,
                               uint32_t port_addr, uint8_t value);
    /** Replay: a byte left the transmit FIFO. */
    void (*replay_serial_send)(PandaCPU *env, target_ptr_t fifo_addr,
                               uint8_t value);
    /** Replay: the guest wrote a byte to the transmit FIFO. */
    void (*replay_serial_write)(PandaCPU *env, target_ptr_t fifo_addr,
                                uint32_t port_addr, uint8_t value);
    /** Replay: before a device accesses RAM. */
    void (*replay_before_dma)(PandaCPU *env, const uint8_t *buf, hwaddr addr,
                              size_t size, bool is_write);
    /** Replay: after a device accessed RAM. */
    void (*replay_after_dma)(PandaCPU *env, const uint8_t *buf, hwaddr addr,
                             size_t size, bool is_write);
    /** Replay: a whole network packet. */
    void (*replay_handle_packet)(PandaCPU *env, uint8_t *buf, size_t size,
                                 uint8_t direction, uint64_t buf_addr_rec);
    /** The execution loop was entered. */
    void (*after_cpu_exec_enter)(PandaCPU *env);
    /** The execution loop is about to be left. */
    void (*before_cpu_exec_exit)(PandaCPU *env, bool ranBlock);
    /**
     * The machine exists, no guest code has run.
     *
     * The place to map memory and set registers.
     */
    void (*after_machine_init)(PandaCPU *env);
    /** A snapshot was loaded. */
    void (*after_loadvm)(PandaCPU *env);
    /**
     * Top of the CPU thread's loop, once per turn.
     *
     * A safe place to ask for snapshots.
     */
    void (*top_loop)(PandaCPU *env);
    /** Inside machine creation, before the board is set up. */
    void (*during_machine_init)(MachineState *machine);
    /** The main loop is about to wait for events (main thread, big lock held). */
    void (*main_loop_wait)(void);
    /** The machine is about to shut down. */
    void (*pre_shutdown)(void);
    /**
     * The CPU has read where nothing is; true: *val is the result.
     *
     * Results of all callbacks are or-ed. If none is true the CPU does what it
     * does without callbacks.
     */
    bool (*unassigned_io_read)(PandaCPU *env, target_ptr_t pc, hwaddr addr,
                               size_t size, uint64_t *val);
    /**
     * The CPU has written where nothing is; true: accept it.
     *
     * Results of all callbacks are or-ed.
     */
    bool (*unassigned_io_write)(PandaCPU *env, target_ptr_t pc, hwaddr addr,
                                size_t size, uint64_t val);
    /**
     * An exception is about to be delivered; returns the number to deliver.
     *
     * All are called with the same number; the first result that differs from
     * it counts. A negative one drops the exception: the CPU goes on at its pc,
     * which for a fault is the instruction that caused it.
     */
    int32_t (*before_handle_exception)(PandaCPU *cpu, int32_t exception_index);
    /**
     * A hardware interrupt is about to be delivered (x86); returns the number to deliver.
     *
     * All are called with the same number; the first result that differs from
     * it counts. One outside of 0 to 255 drops the interrupt.
     */
    int32_t (*before_handle_interrupt)(PandaCPU *cpu,
                                       int32_t interrupt_request);
    /**
     * First thing inside a block.
     *
     * panda_do_break_exec() leaves the loop with the registers as they are
     * now.
     */
    void (*start_block_exec)(PandaCPU *cpu, PandaTB *tb);
    /** Last thing inside a block, before each of its exits. */
    void (*end_block_exec)(PandaCPU *cpu, PandaTB *tb);
    /** Used only to compare callbacks. */
    void (*cbaddr)(void);
} panda_cb;

/** A callback function that takes a context pointer first. */
typedef union panda_cb_with_context {
    void (*before_block_translate)(void *context, PandaCPU *env,
                                   target_ptr_t pc);
    void (*after_block_translate)(void *context, PandaCPU *env, PandaTB *tb);
    bool (*before_block_exec_invalidate_opt)(
        void *context, PandaCPU *env, PandaTB *tb);
    void (*before_tcg_codegen)(void *context, PandaCPU *env, PandaTB *tb);
    void (*before_block_exec)(void *context, PandaCPU *env, PandaTB *tb);
    void (*after_block_exec)(void *context, PandaCPU *env, PandaTB *tb,
                             uint8_t exitCode);
    bool (*insn_translate)(void *context, PandaCPU *env, target_ptr_t pc);
    int (*insn_exec)(void *context, PandaCPU *env, target_ptr_t pc);
    bool (*after_insn_translate)(void *context, PandaCPU *env, target_ptr_t pc);
    int (*after_insn_exec)(void *context, PandaCPU *env, target_ptr_t pc);
    void (*virt_mem_before_read)(void *context, PandaCPU *env, target_ptr_t pc,
                                 target_ptr_t addr, size_t size);
    void (*virt_mem_before_write)(void *context, PandaCPU *env,
                                  target_ptr_t pc, target_ptr_t addr,
                                  size_t size, uint8_t *buf);
    void (*phys_mem_before_read)(void *context, PandaCPU *env, target_ptr_t pc,
                                 target_ptr_t addr, size_t size);
    void (*phys_mem_before_write)(void *context, PandaCPU *env,
                                  target_ptr_t pc, target_ptr_t addr,
                                  size_t size, uint8_t *buf);
    void (*virt_mem_after_read)(void *context, PandaCPU *env, target_ptr_t pc,
                                target_ptr_t addr, size_t size, uint8_t *buf);
    void (*virt_mem_after_write)(void *context, PandaCPU *env, target_ptr_t pc,
                                 target_ptr_t addr, size_t size, uint8_t *buf);
    void (*phys_mem_after_read)(void *context, PandaCPU *env, target_ptr_t pc,
                                target_ptr_t addr, size_t size, uint8_t *buf);
    void (*phys_mem_after_write)(void *context, PandaCPU *env, target_ptr_t pc,
                                 target_ptr_t addr, size_t size, uint8_t *buf);
    void (*mmio_after_read)(void *context, PandaCPU *env,
                            target_ptr_t physaddr, target_ptr_t vaddr,
                            size_t size, uint64_t *val);
    void (*mmio_before_write)(void *context, PandaCPU *env,
                              target_ptr_t physaddr, target_ptr_t vaddr,
                              size_t size, uint64_t *val);
    void (*hd_read)(void *context, PandaCPU *env);
    void (*hd_write)(void *context, PandaCPU *env);
    bool (*guest_hypercall)(void *context, PandaCPU *env);
    int (*monitor)(void *context, Monitor *mon, const char *cmd);
    bool (*qmp)(void *context, char *command, char *args, char **result);
    void (*cpu_restore_state)(void *context, PandaCPU *env, PandaTB *tb);
    int (*before_loadvm)(void *context);
    bool (*asid_changed)(void *context, PandaCPU *env, target_ptr_t oldval,
                         target_ptr_t newval);
    void (*replay_hd_transfer)(void *context, PandaCPU *env, uint32_t type,
                               target_ptr_t src_addr, target_ptr_t dest_addr,
                               size_t num_bytes);
    void (*replay_net_transfer)(void *context, PandaCPU *env, uint32_t type,
                                uint64_t src_addr, uint64_t dest_addr,
                                size_t num_bytes);
    void (*replay_serial_receive)(void *context, PandaCPU *env,
                                  target_ptr_t fifo_addr, uint8_t value);
    void (*replay_serial_read)(void *context, PandaCPU *env,
                               target_ptr_t fifo_addr, uint32_t port_addr,
                               uint8_t value);
    void (*replay_serial_send)(void *context, PandaCPU *env,
                               target_ptr_t fifo_addr, uint8_t value);
    void (*replay_serial_write)(void *context, PandaCPU *env,
                                target_ptr_t fifo_addr, uint32_t port_addr,
                                uint8_t value);
    void (*replay_before_dma)(void *context, PandaCPU *env, const uint8_t *buf,
                              hwaddr addr, size_t size, bool is_write);
    void (*replay_after_dma)(void *context, PandaCPU *env, const uint8_t *buf,
                             hwaddr addr, size_t size, bool is_write);
    void (*replay_handle_packet)(void *context, PandaCPU *env, uint8_t *buf,
                                 size_t size, uint8_t direction,
                                 uint64_t buf_addr_rec);
    void (*after_cpu_exec_enter)(void *context, PandaCPU *env);
    void (*before_cpu_exec_exit)(void *context, PandaCPU *env, bool ranBlock);
    void (*after_machine_init)(void *context, PandaCPU *env);
    void (*after_loadvm)(void *context, PandaCPU *env);
    void (*top_loop)(void *context, PandaCPU *env);
    void (*during_machine_init)(void *context, MachineState *machine);
    void (*main_loop_wait)(void *context);
    void (*pre_shutdown)(void *context);
    bool (*unassigned_io_read)(void *context, PandaCPU *env, target_ptr_t pc,
                               hwaddr addr, size_t size, uint64_t *val);
    bool (*unassigned_io_write)(void *context, PandaCPU *env, target_ptr_t pc,
                                hwaddr addr, size_t size, uint64_t val);
    int32_t (*before_handle_exception)(void *context, PandaCPU *cpu,
                                       int32_t exception_index);
    int32_t (*before_handle_interrupt)(void *context, PandaCPU *cpu,
                                       int32_t interrupt_request);
    void (*start_block_exec)(void *context, PandaCPU *cpu, PandaTB *tb);
    void (*end_block_exec)(void *context, PandaCPU *cpu, PandaTB *tb);
    void (*cbaddr)(void);
} panda_cb_with_context;

/**
 * Append a callback to the list of its kind, enabled.
 *
 * Callbacks of one kind run in the order of registration. plugin is any
 * non-NULL pointer that names the owner. PANDA_ERR_ARGUMENT if the owner has
 * registered the same function for that kind, or if the kind cannot be
 * registered. May be called from any thread; takes effect at the next block.
 */
int panda_register_callback(void *plugin, panda_cb_type type, panda_cb cb);

/** The same with a context that is passed as the first argument. */
int panda_register_callback_with_context(void *plugin, panda_cb_type type,
                                         panda_cb_with_context cb,
                                         void *context);

/** panda_register_callback() with the union passed by pointer. */
int panda_register_callback_helper(void *plugin, panda_cb_type type,
                                   panda_cb *cb);

/** Enable a registered callback; it keeps its place. */
int panda_enable_callback(void *plugin, panda_cb_type type, panda_cb cb);

/** panda_enable_callback() with the union passed by pointer. */
int panda_enable_callback_helper(void *plugin, panda_cb_type type,
                                 panda_cb *cb);

/** Disable a registered callback; it keeps its place. */
int panda_disable_callback(void *plugin, panda_cb_type type, panda_cb cb);

/** panda_disable_callback() with the union passed by pointer. */
int panda_disable_callback_helper(void *plugin, panda_cb_type type,
                                  panda_cb *cb);

/** Whether a callback is registered and enabled. */
bool panda_is_callback_enabled(void *plugin, panda_cb_type type, panda_cb cb);

/** Remove all callbacks of an owner. */
void panda_unregister_callbacks(void *plugin);

/** Enable all callbacks of an owner. */
void panda_enable_plugin(void *plugin);

/** Disable all callbacks of an owner. */
void panda_disable_plugin(void *plugin);

/** Whether the core raises events of a kind (some are declared only). */
bool panda_callback_kind_raised(panda_cb_type type);

/** Number of callbacks of a kind that are registered and enabled. */
uint32_t panda_callback_count(panda_cb_type type);

/**
 * Close (true) or open (false) the gate before every callback.
 *
 * While it is closed no callback body is entered; events are dropped.
 */
void panda_set_callback_gate(bool closed);

/** Drop all translated code before the next block is looked up. */
void panda_do_flush_tb(void);

/** Leave the execution loop at the end of the present start_block_exec. */
void panda_do_break_exec(void);

/** Leave the execution loop without running the present block. */
void panda_exit_cpu_loop(void);

/** Let blocks jump to each other directly (the default). */
void panda_enable_tb_chaining(void);

/** Return to the execution loop after each block. */
void panda_disable_tb_chaining(void);

/**
 * Instrument memory accesses.
 *
 * Registering a memory callback does it by itself: kept for compatibility.
 */
void panda_enable_memcb(void);

/** Undo panda_enable_memcb(). */
void panda_disable_memcb(void);

#endif
