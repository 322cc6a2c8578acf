# SPDX-License-Identifier: GPL-2.0-or-later
#
# Self-test guest for ppc and ppc64: machine ppce500, which starts a kernel
# without firmware. Its CPUs are of the "Book E" kind: the MMU is always on, with
# entries that software writes; QEMU has made one that maps RAM one to one, for
# the kernel and the user program.

        .include "common.inc"

# Special registers.
        .set    SRR0, 26                # where a trap came from
        .set    SRR1, 27                # MSR of there
        .set    DEC, 22
        .set    DECAR, 54
        .set    IVPR, 63                # vectors: common upper part of the address
        .set    IVOR0, 400              # and lower part of each
        .set    EPCR, 307
        .set    SPRG0, 272
        .set    SPRG1, 273
        .set    SPRG2, 274
        .set    TSR, 336
        .set    TCR, 340
        .set    MAS0, 624
        .set    MAS1, 625
        .set    MAS2, 626
        .set    MAS3, 627
        .set    MAS7, 944
        .set    HID0, 1008

# Bits of the machine state register.
        .set    MSR_EE, 0x8000          # interrupts on
        .set    MSR_PR, 0x4000          # user mode
        .set    MSR_WE, 0x40000         # sleep
        .set    MSR_CM, 0x80000000      # 64-bit mode

        .set    TRAP_CALL, 8
        .set    TRAP_TIMER, 10
        .set    TICK, 400000            # 1 ms at 400 MHz

# The registers of the system on the chip, at 0xfe0000000, are mapped here.
        .set    DEVICES, 0x60000000
        .set    UART, DEVICES + 0x4500
        .set    GPIO, DEVICES + 0xff000

        .macro  constant register, value
        lis     \register, ((\value) >> 16) & 0xffff
        ori     \register, \register, (\value) & 0xffff
        .endm
        .macro  address register, symbol
        lis     \register, \symbol@ha
        addi    \register, \register, \symbol@l
        .endm
        # A 32-bit word in memory, through a register that holds its page.
        .macro  load_word register, symbol
        lis     \register, \symbol@ha
        lwz     \register, \symbol@l(\register)
        .endm
        .macro  store_word register, symbol, scratch
        lis     \scratch, \symbol@ha
        stw     \register, \symbol@l(\scratch)
        .endm

# Registers of the full width.
        .if BITS == 64
        .set    MSR_BASE, MSR_CM
        .set    WIDTH, 8
        .macro  load register, place
        ld      \register, \place
        .endm
        .macro  store register, place
        std     \register, \place
        .endm
        .macro  store_down register, place
        stdu    \register, \place
        .endm
        .else
        .set    MSR_BASE, 0
        .set    WIDTH, 4
        .macro  load register, place
        lwz     \register, \place
        .endm
        .macro  store register, place
        stw     \register, \place
        .endm
        .macro  store_down register, place
        stwu    \register, \place
        .endm
        .endif

        .section .head, "ax"
        global _start
        .if BITS == 64
        lis     r3, 0x0200              # traps are taken in 64-bit mode
        mtspr   EPCR, r3
        .endif
        constant r3, MSR_BASE
        mtmsr   r3
        isync
        address r1, stack_top
        # Nothing else has cleared what the file does not hold.
        address r3, load_end
        address r4, bss_end
        li      r5, 0
1:      cmplw   r3, r4
        bge     2f
        stb     r5, 0(r3)
        addi    r3, r3, 1
        b       1b

        # The devices: entry 1 of table 1, a page of 1 MB, uncached, guarded, for
        # the kernel.
2:      lis     r3, 0x1001
        mtspr   MAS0, r3
        constant r3, 0xc0000500
        mtspr   MAS1, r3
        lis     r3, DEVICES >> 16
        ori     r3, r3, 0xa
        mtspr   MAS2, r3
        constant r3, 0xe0000005
        mtspr   MAS3, r3
        li      r3, 0xf
        mtspr   MAS7, r3
        tlbwe
        isync

        address r3, vectors
        mtspr   IVPR, r3
        .set    number, 0
        .rept   16
        mtspr   IVOR0 + number, r3
        addi    r3, r3, 16
        .set    number, number + 1
        .endr

        address r3, text_banner
        bl      print
        bl      self_test_memory
        bl      self_test_branches
        bl      self_test_timer
        bl      self_test_user
        address r3, text_done
        bl      print

        # Pin 0 of the GPIO switches the power off.
        global power_off
        constant r3, GPIO
        lis     r4, 0x8000
        stw     r4, 0(r3)               # the pin is an output
        stw     r4, 8(r3)
halt:   wrteei  0
        b       halt

# r3: what has failed.
fail:   bl      print
        b       power_off

        .text
# Print the text at r3. Changes r3 to r5.
print:  constant r4, UART
1:      lbz     r5, 5(r4)
        andi.   r5, r5, 0x20            # the transmitter is empty
        beq     1b
        lbz     r5, 0(r3)
        cmpwi   r5, 0
        beqlr
        stb     r5, 0(r4)
        addi    r3, r3, 1
        b       1b

# Print r3 in decimal. Changes r3 to r7.
print_number:
        address r4, buffer+31
        li      r5, 0
        stb     r5, 0(r4)
        li      r5, 10
1:      divwu   r6, r3, r5
        mullw   r7, r6, r5
        subf    r7, r7, r3
        addi    r7, r7, '0'
        stbu    r7, -1(r4)
        mr.     r3, r6
        bne     1b
        mr      r3, r4
        b       print

# ---- memory ----

        # Compares 32 bits.
        .macro  expect value, register
        constant r12, \value
        cmplw   r12, \register
        bne     memory_failed
        .endm
        .macro  expect_double value, register
        constant r12, (\value)>>32
        sldi    r12, r12, 32
        oris    r12, r12, ((\value)>>16)&0xffff
        ori     r12, r12, (\value)&0xffff
        cmpld   r12, \register
        bne     memory_failed
        .endm

        global self_test_memory
        address r3, buffer
        # Bytes in, one by one.
        mr      r4, r3
        li      r5, 0x81
1:      stb     r5, 0(r4)
        addi    r4, r4, 1
        addi    r5, r5, 0x11
        cmpwi   r5, 0x81+8*0x11
        bne     1b
        # What is wider, out: without and with sign, aligned and not, and in the
        # other byte order.
        lbz     r4, 0(r3)
        expect  0x81, r4
        extsb   r4, r4
        expect  0x81-0x100, r4
        lhz     r4, 0(r3)
        expect  HALF, r4
        lha     r4, 0(r3)
        expect  HALF-0x10000, r4
        lwz     r4, 0(r3)
        expect  WORD, r4
        lwz     r4, 1(r3)
        expect  UNALIGNED, r4
        lwbrx   r4, 0, r3
        expect  0xb4a39281, r4
        lhbrx   r4, 0, r3
        expect  0x9281, r4
        .if BITS == 64
        lwa     r4, 0(r3)
        expect_double WORD-0x100000000, r4
        ld      r8, 0(r3)
        expect_double DOUBLE, r8
        .endif
        # What is wider, in; bytes out.
        li      r4, 0x1234
        sth     r4, 8(r3)
        constant r4, 0x56789abc
        stw     r4, 10(r3)              # not aligned
        lbz     r4, 8(r3)
        expect  0x12, r4
        lbz     r4, 9(r3)
        expect  0x34, r4
        lbz     r4, 10(r3)
        expect  0x56, r4
        lbz     r4, 13(r3)
        expect  0xbc, r4
        .if BITS == 64
        stdu    r8, 16(r3)
        lbz     r4, 0(r3)
        expect  0x81, r4
        lbz     r4, 7(r3)
        expect  0xf8, r4
        addi    r3, r3, -16
        .endif
        # Several registers at once; a load with a conditional store.
        lmw     r30, 0(r3)
        expect  WORD, r30
        expect  0xc5d6e7f8, r31
        addi    r3, r3, 16
        stmw    r30, 0(r3)
1:      lwarx   r4, 0, r3
        addi    r4, r4, 1
        stwcx.  r4, 0, r3
        bne-    1b
        lwz     r4, 0(r3)
        expect  WORD+1, r4
        lwz     r4, 4(r3)
        expect  0xc5d6e7f8, r4
        address r3, text_memory
        b       print
memory_failed:
        address r3, text_fail_memory
        b       fail

# ---- branches ----

        # r20 is the checksum, r21 the round. Of r20 only 32 bits count.
        global self_test_branches
        mflr    r0
        store_down r0, -16(r1)
        li      r20, SEED
        li      r21, 1
        address r22, functions
        constant r23, ABOVE
        constant r24, BELOW
1:      andi.   r3, r21, 1
        beq     2f
        add     r20, r20, r21
        b       3f
2:      xor     r20, r20, r21
3:      rlwinm  r3, r21, 2, 0xc
        lwzx    r3, r3, r22
        mtctr   r3
        bctrl
        cmplw   r20, r23
        bge     4f
        bl      mix
4:      cmpw    r20, r24
        bge     5f
        xori    r20, r20, 0x55
5:      addi    r21, r21, 1
        cmpwi   r21, ROUNDS
        ble     1b
        load    r0, 0(r1)
        addi    r1, r1, 16
        mtlr    r0
        constant r3, CHECKSUM
        cmplw   r3, r20
        bne     6f
        address r3, text_branches
        b       print
6:      address r3, text_fail_branches
        b       fail

mix:    addi    r20, r20, MIX
        blr
function_0:
        slwi    r3, r20, 5
        add     r20, r20, r3
        blr
function_1:
        not     r20, r20
        blr
function_2:
        addi    r20, r20, -7
        blr
function_3:
        srwi    r3, r20, 3
        xor     r20, r20, r3
        blr

        .section .rodata
        .balign 4
functions:
        .4byte  function_0, function_1, function_2, function_3
        .text

# ---- traps ----

# One stub for each kind of trap. SPRG0 to SPRG2 keep r3, r4 and the condition
# register. Traps do not nest.
        .balign 256
vectors:
        .set    number, 0
        .rept   16
        .balign 16
        mtspr   SPRG0, r3
        li      r3, number
        b       trap_entry
        .set    number, number + 1
        .endr

        .balign 16
        global trap_entry
        mtspr   SPRG1, r4
        mfcr    r4
        mtspr   SPRG2, r4
        cmpwi   r3, TRAP_CALL
        beq     call_trap
        cmpwi   r3, TRAP_TIMER
        beq     timer_trap
        address r3, text_fail_trap
        b       fail

timer_trap:
        load_word r3, counter
        addi    r3, r3, 1
        store_word r3, counter, r4
        lis     r3, 0x0800
        mtspr   TSR, r3                 # the interrupt has been seen
        .if BITS == 32
        mfspr   r3, SRR1                # do not go on sleeping
        rlwinm  r3, r3, 0, ~MSR_WE
        mtspr   SRR1, r3
        .endif
trap_exit:
        mfspr   r4, SPRG2
        mtcr    r4
        mfspr   r4, SPRG1
        mfspr   r3, SPRG0
        rfi

# ---- timer ----

        global self_test_timer
        mflr    r0
        store_down r0, -16(r1)
        # The decrementer comes last: reaching 0 before it was told to start again
        # from DECAR it would stay there.
        constant r3, TICK
        mtspr   DECAR, r3
        lis     r4, 0x0440              # an interrupt at 0, then again from DECAR
        mtspr   TCR, r4
        mtspr   DEC, r3
        .if BITS == 32
        lis     r3, 0x0080              # MSR_WE means doze
        mtspr   HID0, r3
        constant r4, MSR_WE + MSR_EE
        .endif
        # An interrupt between the comparison and the sleep costs a tick, no more.
        wrteei  1
1:
        .if BITS == 64
        wait
        .else
        mtmsr   r4
        isync
        .endif
        load_word r3, counter
        cmpwi   r3, TICKS
        blt     1b
        wrteei  0
        li      r3, 0
        mtspr   TCR, r3
        address r3, text_timer
        bl      print
        load_word r3, counter
        bl      print_number
        address r3, text_ok
        load    r0, 0(r1)
        addi    r1, r1, 16
        mtlr    r0
        b       print

# ---- user mode ----

        global self_test_user
        mflr    r0
        store_down r0, -16(r1)
        lis     r3, kernel_sp@ha
        store   r1, kernel_sp@l(r3)
        address r3, user_entry
        mtspr   SRR0, r3
        constant r3, MSR_BASE + MSR_PR + MSR_EE
        mtspr   SRR1, r3
        address r1, user_stack_top
        rfi

# A system call: r0 is the number, r3 the argument and the result.
call_trap:
        mfspr   r3, SRR1                # where it came from: user mode?
        andi.   r3, r3, MSR_PR
        beq     user_failed
        cmpwi   r0, CALL_COUNT
        bne     1f
        load_word r3, user_calls
        addi    r3, r3, 1
        store_word r3, user_calls, r4
        mfspr   r4, SPRG0
        load_word r3, user_sum
        add     r3, r3, r4
        store_word r3, user_sum, r4
        mtspr   SPRG0, r3
        b       trap_exit
1:      cmpwi   r0, CALL_EXIT
        bne     user_failed
        mfspr   r3, SPRG0
        cmpwi   r3, CALL_SUM
        bne     user_failed
        load_word r3, user_calls
        cmpwi   r3, CALLS
        bne     user_failed
        lis     r3, kernel_sp@ha
        load    r1, kernel_sp@l(r3)
        load    r0, 0(r1)
        addi    r1, r1, 16
        mtlr    r0
        address r3, text_user
        b       print
user_failed:
        address r1, stack_top
        address r3, text_fail_user
        b       fail

        # In user mode: r20 is the sum, r21 counts down.
        .section .user
        global user_entry
        li      r20, 0
        li      r21, CALLS
1:      add     r20, r20, r21
        store_down r20, -16(r1)
        mr      r3, r21
        li      r0, CALL_COUNT
        sc
        load    r4, 0(r1)
        addi    r1, r1, 16
        cmpw    r3, r4
        bne     2f
        addic.  r21, r21, -1
        bne     1b
        mr      r3, r20
        li      r0, CALL_EXIT
        sc
2:      li      r3, 0                   # the sums differ
        li      r0, CALL_EXIT
        sc
