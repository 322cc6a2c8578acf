# SPDX-License-Identifier: GPL-2.0-or-later
#
# Self-test guest for riscv64: machine virt without firmware, so the kernel is in
# machine mode (M) and the user program in U.

        .include "common.inc"

        .set    UART, 0x10000000
        .set    MTIMECMP, 0x2004000
        .set    MTIME, 0x200bff8
        .set    TICK, 10000             # 1 ms at 10 MHz
        .set    FINISHER, 0x100000

        .set    MSTATUS_MIE, 8
        .set    MSTATUS_MPIE, 0x80
        .set    MSTATUS_MPP, 0x1800
        .set    MIE_MTIE, 0x80
        .set    CAUSE_USER_CALL, 8
        .set    CAUSE_TIMER, 7          # with the top bit set

        .section .head, "ax"
        global _start
        la      sp, stack_top
        # Nothing else has cleared what the file does not hold.
        la      t0, load_end
        la      t1, bss_end
1:      bgeu    t0, t1, 2f
        sb      zero, (t0)
        addi    t0, t0, 1
        j       1b
2:      la      t0, trap_entry
        csrw    mtvec, t0
        la      t0, trap_frame
        csrw    mscratch, t0
        # Without a rule U-mode may access nothing: all is readable, writable
        # and executable.
        li      t0, -1
        csrw    pmpaddr0, t0
        li      t0, 0x1f
        csrw    pmpcfg0, t0

        la      a0, text_banner
        call    print
        call    self_test_memory
        call    self_test_branches
        call    self_test_timer
        call    self_test_user
        la      a0, text_done
        call    print

        global power_off
        li      t0, FINISHER
        li      t1, 0x5555
        sw      t1, (t0)
halt:   wfi
        j       halt

# a0: what has failed.
fail:   call    print
        j       power_off

        .text
# Print the text at a0. Changes a0, t0, t1.
print:  li      t0, UART
1:      lbu     t1, 5(t0)
        andi    t1, t1, 0x20            # the transmitter is empty
        beqz    t1, 1b
        lbu     t1, (a0)
        beqz    t1, 2f
        sb      t1, (t0)
        addi    a0, a0, 1
        j       1b
2:      ret

# Print a0 in decimal. Changes a0, t0, t1, t2.
print_number:
        la      t0, buffer + 31
        sb      zero, (t0)
        li      t1, 10
1:      remu    t2, a0, t1
        addi    t2, t2, '0'
        addi    t0, t0, -1
        sb      t2, (t0)
        divu    a0, a0, t1
        bnez    a0, 1b
        mv      a0, t0
        j       print

# ---- memory ----

        .macro  expect value, register
        li      t6, \value
        bne     t6, \register, memory_failed
        .endm

        global self_test_memory
        la      a0, buffer
        # Bytes in, one by one.
        mv      t0, a0
        li      t1, 0x81
        li      t2, 0x81 + 8 * 0x11
1:      sb      t1, (t0)
        addi    t0, t0, 1
        addi    t1, t1, 0x11
        bne     t1, t2, 1b
        # What is wider, out: without and with sign, aligned and not.
        lbu     t0, (a0)
        expect  0x81, t0
        lb      t0, (a0)
        expect  0x81-0x100, t0
        lhu     t0, (a0)
        expect  HALF, t0
        lh      t0, (a0)
        expect  HALF-0x10000, t0
        lwu     t0, (a0)
        expect  WORD, t0
        lw      t0, (a0)
        expect  WORD-0x100000000, t0
        lwu     t0, 1(a0)
        expect  UNALIGNED, t0
        ld      t3, (a0)
        expect  DOUBLE, t3
        # What is wider, in; bytes out.
        li      t0, 0x1234
        sh      t0, 8(a0)
        li      t0, 0x56789abc
        sw      t0, 10(a0)              # not aligned
        lbu     t0, 8(a0)
        expect  0x34, t0
        lbu     t0, 9(a0)
        expect  0x12, t0
        lbu     t0, 10(a0)
        expect  0xbc, t0
        lbu     t0, 13(a0)
        expect  0x56, t0
        sd      t3, 16(a0)
        lbu     t0, 16(a0)
        expect  0x81, t0
        lbu     t0, 23(a0)
        expect  0xf8, t0
        # Atomic: add to memory, and a load with a conditional store.
        addi    t0, a0, 16
        li      t1, 1
        amoadd.w t2, t1, (t0)
        expect  WORD-0x100000000, t2
1:      lr.w    t2, (t0)
        addi    t2, t2, 1
        sc.w    t1, t2, (t0)
        bnez    t1, 1b
        lwu     t0, (t0)
        expect  WORD+2, t0
        la      a0, text_memory
        j       print
memory_failed:
        la      a0, text_fail_memory
        j       fail

# ---- branches ----

        # s0 is the checksum (sign-extended, as 32-bit instructions leave it; the
        # order of such numbers is the order of the 32-bit ones), s1 the round.
        global self_test_branches
        addi    sp, sp, -16
        sd      ra, (sp)
        li      s0, SEED
        li      s1, 1
        la      s2, functions
        li      s3, ROUNDS
        li      s4, ABOVE - 0x100000000
        li      s5, BELOW
1:      andi    t0, s1, 1
        beqz    t0, 2f
        addw    s0, s0, s1
        j       3f
2:      xor     s0, s0, s1
3:      andi    t0, s1, 3
        slli    t0, t0, 3
        add     t0, t0, s2
        ld      t0, (t0)
        jalr    t0
        bgeu    s0, s4, 4f
        call    mix
4:      bge     s0, s5, 5f
        xori    s0, s0, 0x55
5:      addi    s1, s1, 1
        ble     s1, s3, 1b
        ld      ra, (sp)
        addi    sp, sp, 16
        li      t0, CHECKSUM
        sext.w  t0, t0
        bne     s0, t0, 6f
        la      a0, text_branches
        j       print
6:      la      a0, text_fail_branches
        j       fail

mix:    li      t0, MIX
        addw    s0, s0, t0
        ret
function_0:
        slliw   t0, s0, 5
        addw    s0, s0, t0
        ret
function_1:
        not     s0, s0
        ret
function_2:
        addiw   s0, s0, -7
        ret
function_3:
        srliw   t0, s0, 3
        xor     s0, s0, t0
        ret

        .section .rodata
        .balign 8
functions:
        .quad   function_0, function_1, function_2, function_3
        .bss
        .balign 8
trap_frame:
        .skip   32
        .text

# ---- traps ----

# mscratch points to trap_frame. Traps do not nest.
        .balign 4
        global trap_entry
        csrrw   t0, mscratch, t0
        sd      t1, (t0)
        sd      t2, 8(t0)
        csrr    t1, mcause
        bgez    t1, 1f
        slli    t1, t1, 1               # drop the top bit
        li      t2, CAUSE_TIMER << 1
        beq     t1, t2, timer_trap
        j       trap_failed
1:      li      t2, CAUSE_USER_CALL
        beq     t1, t2, call_trap
trap_failed:
        la      a0, text_fail_trap
        j       fail

timer_trap:
        lw      t1, counter
        addi    t1, t1, 1
        sw      t1, counter, t2
        li      t2, TICKS
        blt     t1, t2, 1f
        li      t1, MIE_MTIE            # enough
        csrc    mie, t1
1:      li      t1, MTIME
        ld      t1, (t1)
        li      t2, TICK
        add     t1, t1, t2
        li      t2, MTIMECMP
        sd      t1, (t2)
trap_exit:
        ld      t1, (t0)
        ld      t2, 8(t0)
        csrrw   t0, mscratch, t0
        mret

# ---- timer ----

        global self_test_timer
        addi    sp, sp, -16
        sd      ra, (sp)
        li      t0, MTIME
        ld      t0, (t0)
        li      t1, TICK
        add     t0, t0, t1
        li      t1, MTIMECMP
        sd      t0, (t1)
        li      t0, MIE_MTIE
        csrs    mie, t0
        # wfi also ends for an interrupt that is not let through, so none is
        # missed between the comparison and it.
1:      csrci   mstatus, MSTATUS_MIE
        lw      t0, counter
        li      t1, TICKS
        bge     t0, t1, 2f
        wfi
        csrsi   mstatus, MSTATUS_MIE
        j       1b
2:      la      a0, text_timer
        call    print
        lw      a0, counter
        call    print_number
        la      a0, text_ok
        ld      ra, (sp)
        addi    sp, sp, 16
        j       print

# ---- user mode ----

        global self_test_user
        addi    sp, sp, -16
        sd      ra, (sp)
        sd      sp, kernel_sp, t0
        la      t0, user_entry
        csrw    mepc, t0
        li      t0, MSTATUS_MPP         # return to U
        csrc    mstatus, t0
        li      t0, MSTATUS_MPIE        # with interrupts
        csrs    mstatus, t0
        la      sp, user_stack_top
        mret

# A system call: a7 is the number, a0 the argument and the result.
call_trap:
        csrr    t1, mstatus             # where it came from: U?
        li      t2, MSTATUS_MPP
        and     t1, t1, t2
        bnez    t1, user_failed
        csrr    t1, mepc
        addi    t1, t1, 4
        csrw    mepc, t1
        li      t1, CALL_COUNT
        bne     a7, t1, 1f
        lw      t1, user_calls
        addi    t1, t1, 1
        sw      t1, user_calls, t2
        lw      t1, user_sum
        add     a0, a0, t1
        sw      a0, user_sum, t2
        j       trap_exit
1:      li      t1, CALL_EXIT
        bne     a7, t1, user_failed
        li      t1, CALL_SUM
        bne     a0, t1, user_failed
        lw      t1, user_calls
        li      t2, CALLS
        bne     t1, t2, user_failed
        csrw    mscratch, t0
        ld      sp, kernel_sp
        ld      ra, (sp)
        addi    sp, sp, 16
        la      a0, text_user
        j       print
user_failed:
        la      sp, stack_top
        la      a0, text_fail_user
        j       fail

# In U: s0 is the sum, s1 counts down.
        .section .user
        global user_entry
        li      s0, 0
        li      s1, CALLS
1:      add     s0, s0, s1
        addi    sp, sp, -16
        sd      s0, (sp)
        mv      a0, s1
        li      a7, CALL_COUNT
        ecall
        ld      t0, (sp)
        addi    sp, sp, 16
        bne     a0, t0, 2f
        addi    s1, s1, -1
        bnez    s1, 1b
        mv      a0, s0
        li      a7, CALL_EXIT
        ecall
2:      li      a0, 0                   # the sums differ
        li      a7, CALL_EXIT
        ecall
