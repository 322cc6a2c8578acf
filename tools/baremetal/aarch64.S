# SPDX-License-Identifier: GPL-2.0-or-later
#
# Self-test guest for aarch64: machine virt, the kernel in EL1, the user program
# in EL0. The MMU is on: without it all memory is of a device's kind, where
# accesses have to be aligned.

        .include "common.inc"

        .set    UART, 0x09000000
        .set    GIC_DISTRIBUTOR, 0x08000000
        .set    GIC_CPU, 0x08010000
        .set    TIMER_INTERRUPT, 27     // of the virtual timer
        .set    PSCI_SYSTEM_OFF, 0x84000008

# Bits of page table entries.
        .set    TABLE, 3
        .set    BLOCK, 0x401           
        .set    PAGE, 0x707             // accessed, inner shareable, attribute 1
        .set    USER, 0x40              // EL0 may access it
        .set    NOT_USER, 1 << 54       // EL0 may not execute it

        # A 64-bit or smaller constant.
        .macro  constant register, value
        ldr     \register, =\value
        .endm

        .section .head, "ax"
        global _start
        constant x0, stack_top
        mov     sp, x0
        # Nothing else has cleared what the file does not hold.
        constant x0, load_end
        constant x1, bss_end
1:      cmp     x0, x1
        b.hs    2f
        strb    wzr, [x0], #1
        b       1b

        # Addresses are mapped one to one. Level 1: the first GB is devices, the
        # second RAM, by level 2 and 3 in pages of 4 KB. EL1 must not execute
        # what EL0 may write, so the user program's pages are marked alone.
2:      constant x0, level_1
        constant x1, BLOCK
        str     x1, [x0]
        constant x1, level_2+TABLE
        str     x1, [x0, #8]
        constant x0, level_2
        constant x1, level_3+TABLE
        str     x1, [x0]
        constant x0, level_3
        constant x1, 0x40000000
        constant x2, 0x40200000
        constant x3, user_begin
        constant x4, user_end
        constant x6, PAGE
3:      orr     x5, x1, x6
        cmp     x1, x3
        ccmp    x1, x4, #2, hs          // in the user program's pages?
        b.lo    4f
        orr     x5, x5, #NOT_USER
        b       5f
4:      orr     x5, x5, #USER
5:      str     x5, [x0], #8
        add     x1, x1, #4096
        cmp     x1, x2
        b.ne    3b
        constant x0, 0xff00             // attribute 0: device, 1: cached
        msr     mair_el1, x0
        constant x0, 0x80803520         // 4 GB by TTBR0, none by TTBR1
        msr     tcr_el1, x0
        constant x0, level_1
        msr     ttbr0_el1, x0
        dsb     sy
        tlbi    vmalle1
        dsb     sy
        isb
        mrs     x0, sctlr_el1
        constant x1, 0x1005             // MMU and caches on
        orr     x0, x0, x1
        bic     x0, x0, #2              // no alignment checks
        msr     sctlr_el1, x0
        isb

        constant x0, vectors
        msr     vbar_el1, x0
        constant x0, UART
        mov     w1, #0x301              // the UART and both directions on
        str     w1, [x0, #0x30]

        constant x0, text_banner
        bl      print
        bl      self_test_memory
        bl      self_test_branches
        bl      self_test_timer
        bl      self_test_user
        constant x0, text_done
        bl      print

        global power_off
        constant x0, PSCI_SYSTEM_OFF
        hvc     #0
halt:   wfi
        b       halt

# x0: what has failed.
fail:   bl      print
        b       power_off

        .text
# Print the text at x0. Changes x0 to x2.
print:  constant x1, UART
1:      ldr     w2, [x1, #0x18]
        tbnz    w2, #5, 1b              // the transmitter is full
        ldrb    w2, [x0], #1
        cbz     w2, 2f
        str     w2, [x1]
        b       1b
2:      ret

# Print w0 in decimal. Changes x0 to x4.
print_number:
        constant x1, buffer+31
        strb    wzr, [x1]
        mov     w2, #10
1:      udiv    w3, w0, w2
        msub    w4, w3, w2, w0
        add     w4, w4, #'0'
        strb    w4, [x1, #-1]!
        mov     w0, w3
        cbnz    w0, 1b
        mov     x0, x1
        b       print

# ---- memory ----

        .macro  expect value, register
        ldr     x9, =\value
        cmp     x9, \register
        b.ne    memory_failed
        .endm

        global self_test_memory
        constant x0, buffer
        # Bytes in, one by one.
        mov     x1, x0
        mov     w2, #0x81
1:      strb    w2, [x1], #1
        add     w2, w2, #0x11
        cmp     w2, #0x81 + 8 * 0x11
        b.ne    1b
        # What is wider, out: without and with sign, aligned and not.
        ldrb    w1, [x0]
        expect  0x81, x1
        ldrsb   x1, [x0]
        expect  0x81-0x100, x1
        ldrh    w1, [x0]
        expect  HALF, x1
        ldrsh   x1, [x0]
        expect  HALF-0x10000, x1
        ldr     w1, [x0]
        expect  WORD, x1
        ldrsw   x1, [x0]
        expect  WORD-0x100000000, x1
        ldr     w1, [x0, #1]
        expect  UNALIGNED, x1
        ldr     x2, [x0]
        expect  DOUBLE, x2
        # What is wider, in; bytes out.
        mov     w1, #0x1234
        strh    w1, [x0, #8]
        constant w1, 0x56789abc
        str     w1, [x0, #10]           // not aligned
        ldrb    w1, [x0, #8]
        expect  0x34, x1
        ldrb    w1, [x0, #9]
        expect  0x12, x1
        ldrb    w1, [x0, #10]
        expect  0xbc, x1
        ldrb    w1, [x0, #13]
        expect  0x56, x1
        # Two registers at once; a load with a conditional store.
        stp     x2, xzr, [x0, #16]
        ldrb    w1, [x0, #16]
        expect  0x81, x1
        ldrb    w1, [x0, #23]
        expect  0xf8, x1
        add     x0, x0, #16
1:      ldxr    w1, [x0]
        add     w1, w1, #1
        stxr    w3, w1, [x0]
        cbnz    w3, 1b
        ldp     w1, w3, [x0]
        expect  WORD+1, x1
        expect  DOUBLE>>32, x3
        constant x0, text_memory
        b       print
memory_failed:
        constant x0, text_fail_memory
        b       fail

# ---- branches ----

        # w19 is the checksum, w20 the round.
        global self_test_branches
        stp     x29, x30, [sp, #-16]!
        mov     w19, #SEED
        mov     w20, #1
        constant x21, functions
        constant w22, ABOVE
        constant w23, BELOW
1:      tbz     w20, #0, 2f
        add     w19, w19, w20
        b       3f
2:      eor     w19, w19, w20
3:      and     w0, w20, #3
        ldr     x0, [x21, x0, lsl #3]
        blr     x0
        cmp     w19, w22
        b.hs    4f
        bl      mix
4:      cmp     w19, w23
        b.ge    5f
        mov     w0, #0x55
        eor     w19, w19, w0
5:      add     w20, w20, #1
        cmp     w20, #ROUNDS
        b.ls    1b
        ldp     x29, x30, [sp], #16
        constant w0, CHECKSUM
        cmp     w0, w19
        b.ne    6f
        constant x0, text_branches
        b       print
6:      constant x0, text_fail_branches
        b       fail

mix:    constant w0, MIX
        add     w19, w19, w0
        ret
function_0:
        add     w19, w19, w19, lsl #5
        ret
function_1:
        mvn     w19, w19
        ret
function_2:
        sub     w19, w19, #7
        ret
function_3:
        eor     w19, w19, w19, lsr #3
        ret

        .section .rodata
        .balign 8
functions:
        .quad   function_0, function_1, function_2, function_3
        .bss
        .balign 4096
level_1:
        .skip   4096
level_2:
        .skip   4096
level_3:
        .skip   4096
        .text

# ---- traps ----

# Four kinds of trap from each of: EL1 with SP_EL0, EL1, EL0, EL0 in 32-bit mode.
        .set    SYNC_USER, 8
        .set    INTERRUPT_KERNEL, 5
        .set    INTERRUPT_USER, 9

        .balign 2048
vectors:
        .set    number, 0
        .rept   16
        .balign 128
        stp     x9, x10, [sp, #-32]!
        mov     x9, #number
        b       trap_entry
        .set    number, number + 1
        .endr

        .balign 128
        global trap_entry
        str     x11, [sp, #16]
        cmp     x9, #SYNC_USER
        b.eq    call_trap
        cmp     x9, #INTERRUPT_KERNEL
        b.eq    timer_trap
        cmp     x9, #INTERRUPT_USER
        b.eq    timer_trap
trap_failed:
        constant x0, text_fail_trap
        b       fail

timer_trap:
        constant x9, GIC_CPU
        ldr     w10, [x9, #0xc]         // acknowledge
        cmp     w10, #TIMER_INTERRUPT
        b.ne    trap_failed
        constant x10, counter
        ldr     w11, [x10]
        add     w11, w11, #1
        str     w11, [x10]
        cmp     w11, #TICKS
        mrs     x11, cntfrq_el0
        mov     x10, #1000
        udiv    x11, x11, x10
        msr     cntv_tval_el0, x11
        b.lo    1f
        msr     cntv_ctl_el0, xzr       // enough
1:      isb
        mov     w10, #TIMER_INTERRUPT
        str     w10, [x9, #0x10]        // end of interrupt
trap_exit:
        ldr     x11, [sp, #16]
        ldp     x9, x10, [sp], #32
        eret

# ---- timer ----

        global self_test_timer
        stp     x29, x30, [sp, #-16]!
        constant x0, GIC_DISTRIBUTOR
        mov     w1, #1
        str     w1, [x0]
        mov     w1, #1 << TIMER_INTERRUPT
        str     w1, [x0, #0x100]        // unmask
        constant x0, GIC_CPU
        mov     w1, #0xff               // any priority
        str     w1, [x0, #4]
        mov     w1, #1
        str     w1, [x0]
        mrs     x0, cntfrq_el0
        mov     x1, #1000
        udiv    x0, x0, x1
        msr     cntv_tval_el0, x0
        mov     x1, #1
        msr     cntv_ctl_el0, x1
        constant x2, counter
        # wfi also ends for an interrupt that is not let through, so none is
        # missed between the comparison and it.
1:      msr     daifset, #2
        ldr     w0, [x2]
        cmp     w0, #TICKS
        b.hs    2f
        wfi
        msr     daifclr, #2
        b       1b
2:      constant x0, text_timer
        bl      print
        constant x0, counter
        ldr     w0, [x0]
        bl      print_number
        constant x0, text_ok
        ldp     x29, x30, [sp], #16
        b       print

# ---- user mode ----

        global self_test_user
        stp     x29, x30, [sp, #-16]!
        mov     x0, sp
        constant x1, kernel_sp
        str     x0, [x1]
        constant x0, user_stack_top
        msr     sp_el0, x0
        constant x0, user_entry
        msr     elr_el1, x0
        msr     spsr_el1, xzr           // EL0, interrupts on
        eret

# A system call: x8 is the number, x0 the argument and the result.
call_trap:
        mrs     x9, esr_el1
        lsr     x9, x9, #26
        cmp     x9, #0x15               // svc, not something else
        b.ne    trap_failed
        mrs     x9, spsr_el1            // where it came from: EL0?
        tst     x9, #0x1f
        b.ne    user_failed
        constant x9, user_calls
        cmp     x8, #CALL_COUNT
        b.ne    1f
        ldr     w10, [x9]
        add     w10, w10, #1
        str     w10, [x9]
        constant x9, user_sum
        ldr     w10, [x9]
        add     w0, w0, w10
        str     w0, [x9]
        b       trap_exit
1:      cmp     x8, #CALL_EXIT
        b.ne    user_failed
        constant x10, CALL_SUM
        cmp     x0, x10
        b.ne    user_failed
        ldr     w10, [x9]
        cmp     w10, #CALLS
        b.ne    user_failed
        constant x0, kernel_sp
        ldr     x0, [x0]
        mov     sp, x0
        ldp     x29, x30, [sp], #16
        constant x0, text_user
        b       print
user_failed:
        constant x0, text_fail_user
        b       fail

        # In EL0: w19 is the sum, w20 counts down.
        .ltorg
        .section .user
        global user_entry
        mov     w19, #0
        mov     w20, #CALLS
1:      add     w19, w19, w20
        str     x19, [sp, #-16]!
        mov     w0, w20
        mov     x8, #CALL_COUNT
        svc     #0
        ldr     x1, [sp], #16
        cmp     w0, w1
        b.ne    2f
        subs    w20, w20, #1
        b.ne    1b
        mov     w0, w19
        mov     x8, #CALL_EXIT
        svc     #0
2:      mov     w0, #0                  // the sums differ
        mov     x8, #CALL_EXIT
        svc     #0
