# SPDX-License-Identifier: GPL-2.0-or-later
#
# Self-test guest for mips, mipsel, mips64 and mips64el: machine malta. The kernel
# is in kseg0, where addresses are not translated; the user program runs at
# physical address = virtual address by an entry of the TLB.

        .include "common.inc"

        .set    TICK, 160000            # 1 ms of Count at 160 MHz

        .set    STATUS_IE, 1
        .set    STATUS_EXL, 2
        .set    STATUS_USER, 0x10       # KSU: user mode
        .set    STATUS_KSU, 0x18
        .set    STATUS_TIMER, 0x8000    # interrupt 7
        .set    CAUSE_INTERRUPT, 0
        .set    CAUSE_CALL, 8 << 2

# 64-bit instructions in all modes, where there are any.
        .if BITS == 64
        .set    STATUS_BASE, 0xe0
        .else
        .set    STATUS_BASE, 0
        .endif

# Instructions on registers of the full width. Loads of 32 bits have a sign.
        .if BITS == 64
        .macro  address register, value
        dla     \register, \value
        .endm
        .macro  constant register, value
        dli     \register, \value
        .endm
        .macro  load register, place
        ld      \register, \place
        .endm
        .macro  store register, place
        sd      \register, \place
        .endm
        .macro  move_from register, number
        dmfc0   \register, \number
        .endm
        .macro  move_to register, number
        dmtc0   \register, \number
        .endm
        .macro  add_to register, value
        daddiu  \register, \register, \value
        .endm
        .set    SIGN, 0x100000000
        .else
        .macro  address register, value
        la      \register, \value
        .endm
        .macro  constant register, value
        li      \register, \value
        .endm
        .macro  load register, place
        lw      \register, \place
        .endm
        .macro  store register, place
        sw      \register, \place
        .endm
        .macro  move_from register, number
        mfc0    \register, \number
        .endm
        .macro  move_to register, number
        mtc0    \register, \number
        .endm
        .macro  add_to register, value
        addiu   \register, \register, \value
        .endm
        .set    SIGN, 0
        .endif

# What of 0x1234 and 0x56789abc comes first and last in memory.
        .if BIG
        .set    HALF_FIRST, 0x12
        .set    HALF_LAST, 0x34
        .set    WORD_FIRST, 0x56
        .set    WORD_LAST, 0xbc
        .else
        .set    HALF_FIRST, 0x34
        .set    HALF_LAST, 0x12
        .set    WORD_FIRST, 0xbc
        .set    WORD_LAST, 0x56
        .endif

        .section .head, "ax"
        global _start
        # Out of the state of a reset: exceptions go to our vectors, kernel mode.
        li      $t0, STATUS_BASE
        mtc0    $t0, $12
        ehb
        address $sp, stack_top
        # Nothing else has cleared what the file does not hold.
        address $t0, load_end
        address $t1, bss_end
1:      beq     $t0, $t1, 2f
        sb      $zero, ($t0)
        add_to  $t0, 1
        b       1b
2:      address $t0, vectors
        mtc0    $t0, $15, 1             # EBase
        mtc0    $zero, $13              # Cause: no other vector for interrupts
        ehb

        address $a0, text_banner
        jal     print
        jal     self_test_memory
        jal     self_test_branches
        jal     self_test_timer
        jal     self_test_user
        address $a0, text_done
        jal     print

        # The board's register for a reset: with -no-reboot this ends QEMU.
        global power_off
        lui     $t0, 0xbf00
        ori     $t0, $t0, 0x0500
        li      $t1, 0x42
        sw      $t1, ($t0)
halt:   wait
        b       halt

# $a0: what has failed.
fail:   jal     print
        b       power_off

        .text
# Print the text at $a0. Changes $a0, $t0, $t1.
print:  lui     $t0, 0xb800             # COM1 in the I/O space of PCI
        ori     $t0, $t0, 0x03f8
1:      lbu     $t1, 5($t0)
        andi    $t1, $t1, 0x20          # the transmitter is empty
        beqz    $t1, 1b
        lbu     $t1, ($a0)
        beqz    $t1, 2f
        sb      $t1, ($t0)
        add_to  $a0, 1
        b       1b
2:      jr      $ra

# Print $a0 in decimal. Changes $a0, $t0 to $t2.
print_number:
        address $t0, buffer+31
        sb      $zero, ($t0)
        li      $t1, 10
1:      divu    $zero, $a0, $t1
        mfhi    $t2
        mflo    $a0
        addiu   $t2, $t2, '0'
        add_to  $t0, -1
        sb      $t2, ($t0)
        bnez    $a0, 1b
        move    $a0, $t0
        b       print

# ---- memory ----

        .macro  expect value, register
        constant $t9, \value
        bne     $t9, \register, memory_failed
        .endm

        global self_test_memory
        address $a0, buffer
        # Bytes in, one by one.
        move    $t0, $a0
        li      $t1, 0x81
        li      $t2, 0x81+8*0x11
1:      sb      $t1, ($t0)
        add_to  $t0, 1
        addiu   $t1, $t1, 0x11
        bne     $t1, $t2, 1b
        # What is wider, out: without and with sign, aligned and not.
        lbu     $t0, ($a0)
        expect  0x81, $t0
        lb      $t0, ($a0)
        expect  0x81-0x100, $t0
        lhu     $t0, ($a0)
        expect  HALF, $t0
        lh      $t0, ($a0)
        expect  HALF-0x10000, $t0
        lw      $t0, ($a0)
        expect  WORD-SIGN, $t0
        ulw     $t0, 1($a0)             # lwl and lwr
        expect  UNALIGNED-SIGN, $t0
        .if BITS == 64
        lwu     $t0, ($a0)
        expect  WORD, $t0
        ld      $t3, ($a0)
        expect  DOUBLE, $t3
        .endif
        # What is wider, in; bytes out.
        li      $t0, 0x1234
        sh      $t0, 8($a0)
        li      $t0, 0x56789abc
        usw     $t0, 11($a0)            # swl and swr
        lbu     $t0, 8($a0)
        expect  HALF_FIRST, $t0
        lbu     $t0, 9($a0)
        expect  HALF_LAST, $t0
        lbu     $t0, 11($a0)
        expect  WORD_FIRST, $t0
        lbu     $t0, 14($a0)
        expect  WORD_LAST, $t0
        .if BITS == 64
        usd     $t3, 17($a0)
        lbu     $t0, 17($a0)
        expect  0x81, $t0
        lbu     $t0, 24($a0)
        expect  0xf8, $t0
        uld     $t0, 17($a0)
        expect  DOUBLE, $t0
        .endif
        # A load with a conditional store.
1:      ll      $t0, ($a0)
        addiu   $t0, $t0, 1
        sc      $t0, ($a0)
        beqz    $t0, 1b
        lw      $t0, ($a0)
        expect  WORD-SIGN+1, $t0
        address $a0, text_memory
        b       print
memory_failed:
        address $a0, text_fail_memory
        b       fail

# ---- branches ----

        # $s0 is the checksum (sign-extended, as 32-bit instructions leave it; the
        # order of such numbers is the order of the 32-bit ones), $s1 the round.
        global self_test_branches
        add_to  $sp, -16
        store   $ra, ($sp)
        li      $s0, SEED
        li      $s1, 1
        address $s2, functions
        li      $s3, ROUNDS
        constant $s4, ABOVE-SIGN
        li      $s5, BELOW
1:      andi    $t0, $s1, 1
        beqz    $t0, 2f
        addu    $s0, $s0, $s1
        b       3f
2:      xor     $s0, $s0, $s1
3:      andi    $t0, $s1, 3
        sll     $t0, $t0, 3
        .if BITS == 64
        daddu   $t0, $t0, $s2
        .else
        addu    $t0, $t0, $s2
        .endif
        load    $t0, ($t0)
        jalr    $t0
        bgeu    $s0, $s4, 4f
        jal     mix
4:      bge     $s0, $s5, 5f
        xori    $s0, $s0, 0x55
5:      addiu   $s1, $s1, 1
        ble     $s1, $s3, 1b
        load    $ra, ($sp)
        add_to  $sp, 16
        lui     $t0, CHECKSUM >> 16
        ori     $t0, $t0, CHECKSUM & 0xffff
        bne     $s0, $t0, 6f
        address $a0, text_branches
        b       print
6:      address $a0, text_fail_branches
        b       fail

mix:    addiu   $s0, $s0, MIX
        jr      $ra
function_0:
        sll     $t0, $s0, 5
        addu    $s0, $s0, $t0
        jr      $ra
function_1:
        nor     $s0, $s0, $zero
        jr      $ra
function_2:
        addiu   $s0, $s0, -7
        jr      $ra
function_3:
        srl     $t0, $s0, 3
        xor     $s0, $s0, $t0
        jr      $ra

        # 8 bytes each, of which 32-bit code looks at the first 4.
        .macro  pointer value
        .if BITS == 64
        .8byte  \value
        .else
        .4byte  \value, 0
        .endif
        .endm

        .section .rodata
        .balign 8
functions:
        pointer function_0
        pointer function_1
        pointer function_2
        pointer function_3
        .bss
        .balign 8
trap_frame:
        .skip   32
        .text

# ---- traps ----

        # Set Compare to a tick from now. If Count has passed it before it was
        # written, there would be no interrupt for 27 s: try again.
        .macro  next_tick
9:      mfc0    $t0, $9                 # Count
        li      $t1, TICK
        addu    $t0, $t0, $t1
        mtc0    $t0, $11                # Compare
        ehb
        mfc0    $t1, $9
        subu    $t1, $t1, $t0
        bgez    $t1, 9b
        .endm

        .set    noat
        .balign 4096
vectors:
        b       bad_entry               # no translation
        .balign 128
        b       bad_entry               # no translation, 64 bits
        .balign 128
        b       bad_entry               # cache error
        .balign 128
        b       trap_entry              # all others
bad_entry:
        .set    at
trap_failed:
        address $a0, text_fail_trap
        b       fail

# $k0 and $k1 are free for traps; others are kept in trap_frame. Traps do not nest.
        .set    noat
        global trap_entry
        move    $k1, $at
        .set    at
        address $k0, trap_frame
        store   $k1, ($k0)
        store   $t0, 8($k0)
        store   $t1, 16($k0)
        mfc0    $t0, $13                # Cause
        andi    $t0, $t0, 0x7c
        li      $t1, CAUSE_CALL
        beq     $t0, $t1, call_trap
        bnez    $t0, trap_failed

        mfc0    $t0, $13
        andi    $t0, $t0, STATUS_TIMER
        beqz    $t0, trap_failed
        lw      $t0, counter
        addiu   $t0, $t0, 1
        sw      $t0, counter
        next_tick                       # ends this interrupt
trap_exit:
        address $k0, trap_frame
        load    $t0, 8($k0)
        load    $t1, 16($k0)
        load    $k0, ($k0)
        .set    noat
        move    $at, $k0
        .set    at
        eret

# ---- timer ----

        global self_test_timer
        add_to  $sp, -16
        store   $ra, ($sp)
        next_tick
        li      $t0, STATUS_BASE + STATUS_TIMER + STATUS_IE
        mtc0    $t0, $12
        ehb
        # An interrupt between the comparison and wait costs a tick, no more: the
        # handler goes on setting the timer.
1:      wait
        lw      $t0, counter
        li      $t1, TICKS
        blt     $t0, $t1, 1b
        li      $t0, STATUS_BASE
        mtc0    $t0, $12
        ehb
        address $a0, text_timer
        jal     print
        lw      $a0, counter
        jal     print_number
        address $a0, text_ok
        load    $ra, ($sp)
        add_to  $sp, 16
        b       print

# ---- user mode ----

        global self_test_user
        add_to  $sp, -16
        store   $ra, ($sp)
        store   $sp, kernel_sp
        # An entry of the TLB is for two pages of 4 KB; the user program has one,
        # which may be the even or the odd one of the pair.
        address $t0, user_begin
        srl     $t1, $t0, 6             # the frame number
        ori     $t1, $t1, 0x1f          # cached, writable, valid, global
        li      $t2, 1                  # not valid, global
        andi    $t3, $t0, 0x1000
        bnez    $t3, 1f
        mtc0    $t1, $2
        mtc0    $t2, $3
        b       2f
1:      mtc0    $t2, $2
        mtc0    $t1, $3
2:      ins     $t0, $zero, 0, 13
        move_to $t0, $10                # EntryHi
        mtc0    $zero, $5               # PageMask: 4 KB
        ehb
        tlbwr                           # in the middle of a block
        ehb
        address $t0, user_entry
        move_to $t0, $14                # EPC
        li      $t0, STATUS_BASE + STATUS_USER + STATUS_EXL + STATUS_IE
        mtc0    $t0, $12
        ehb
        address $sp, user_stack_top
        eret

# A system call: $v0 is the number and the result, $a0 the argument.
call_trap:
        mfc0    $t0, $12                # where it came from: user mode?
        andi    $t0, $t0, STATUS_KSU
        li      $t1, STATUS_USER
        bne     $t0, $t1, user_failed
        move_from $t0, $14
        add_to  $t0, 4
        move_to $t0, $14
        li      $t0, CALL_COUNT
        bne     $v0, $t0, 1f
        lw      $t0, user_calls
        addiu   $t0, $t0, 1
        sw      $t0, user_calls
        lw      $v0, user_sum
        addu    $v0, $v0, $a0
        sw      $v0, user_sum
        b       trap_exit
1:      li      $t0, CALL_EXIT
        bne     $v0, $t0, user_failed
        li      $t0, CALL_SUM
        bne     $a0, $t0, user_failed
        lw      $t0, user_calls
        li      $t1, CALLS
        bne     $t0, $t1, user_failed
        li      $t0, STATUS_BASE
        mtc0    $t0, $12
        ehb
        load    $sp, kernel_sp
        load    $ra, ($sp)
        add_to  $sp, 16
        address $a0, text_user
        b       print
user_failed:
        address $a0, text_fail_user
        address $sp, stack_top
        b       fail

        # In user mode: $s0 is the sum, $s1 counts down.
        .section .user
        global user_entry
        li      $s0, 0
        li      $s1, CALLS
1:      addu    $s0, $s0, $s1
        add_to  $sp, -16
        store   $s0, ($sp)
        move    $a0, $s1
        li      $v0, CALL_COUNT
        syscall
        load    $t0, ($sp)
        add_to  $sp, 16
        bne     $v0, $t0, 2f
        addiu   $s1, $s1, -1
        bnez    $s1, 1b
        move    $a0, $s0
        li      $v0, CALL_EXIT
        syscall
2:      li      $a0, 0                  # the sums differ
        li      $v0, CALL_EXIT
        syscall
