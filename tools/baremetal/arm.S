# SPDX-License-Identifier: GPL-2.0-or-later
#
# Self-test guest for arm: machine virt, the kernel in supervisor mode (SVC), the
# user program in user mode (USR). The MMU is on: without it all memory is of a
# device's kind, where accesses have to be aligned.

        .include "common.inc"

        .set    UART, 0x09000000
        .set    GIC_DISTRIBUTOR, 0x08000000
        .set    GIC_CPU, 0x08010000
        .set    TIMER_INTERRUPT, 27     @ of the virtual timer
        .set    PSCI_SYSTEM_OFF, 0x84000008

@ Modes, the low bits of the status register.
        .set    USR, 0x10
        .set    SVC, 0x13
        .set    SYS, 0x1f

@ Bits of page table entries.
        .set    DEVICE, 0x406           @ a section of 1 MB for the kernel
        .set    TABLE, 1
        .set    PAGE, 0x5e              @ cached, for the kernel
        .set    USER, 0x20              @ the user program may access it too

        @ A 32-bit constant.
        .macro  constant register, value
        ldr     \register, =\value
        .endm

        .syntax unified
        .arm
        .section .head, "ax"
        global _start
        constant sp, stack_top
        @ Nothing else has cleared what the file does not hold.
        constant r0, load_end
        constant r1, bss_end
        mov     r2, #0
1:      cmp     r0, r1
        strblo  r2, [r0], #1
        blo     1b

        @ Addresses are mapped one to one: 1 GB of devices in sections, and the MB
        @ the guest is in by a table of pages of 4 KB.
        constant r0, level_1
        constant r1, DEVICE
1:      str     r1, [r0], #4
        add     r1, r1, #0x100000
        cmp     r1, #0x40000000
        blo     1b
        constant r1, level_2+TABLE
        str     r1, [r0, #4]            @ for 0x40100000
        constant r0, level_2
        constant r1, 0x40100000
        constant r2, 0x40200000
        constant r3, user_begin
        constant r4, user_end
2:      orr     r5, r1, #PAGE
        cmp     r1, r3
        blo     3f
        cmp     r1, r4
        orrlo   r5, r5, #USER
3:      str     r5, [r0], #4
        add     r1, r1, #4096
        cmp     r1, r2
        bne     2b
        mov     r0, #0
        mcr     p15, 0, r0, c2, c0, 2   @ TTBCR: all by TTBR0
        mcr     p15, 0, r0, c8, c7, 0   @ forget translations
        constant r0, level_1
        mcr     p15, 0, r0, c2, c0, 0   @ TTBR0
        mov     r0, #1
        mcr     p15, 0, r0, c3, c0, 0   @ domain 0: permissions are checked
        dsb
        isb
        mrc     p15, 0, r0, c1, c0, 0   @ SCTLR
        constant r1, 0x1005             @ MMU and caches on
        orr     r0, r0, r1
        bic     r0, r0, #2              @ no alignment checks
        mcr     p15, 0, r0, c1, c0, 0
        isb

        constant r0, vectors
        mcr     p15, 0, r0, c12, c0, 0  @ VBAR
        constant r0, UART
        constant r1, 0x301              @ the UART and both directions on
        str     r1, [r0, #0x30]

        constant r0, text_banner
        bl      print
        bl      self_test_memory
        bl      self_test_branches
        bl      self_test_timer
        bl      self_test_user
        constant r0, text_done
        bl      print

        global power_off
        constant r0, PSCI_SYSTEM_OFF
        hvc     #0
halt:   wfi
        b       halt

@ r0: what has failed.
fail:   bl      print
        b       power_off
        .ltorg

        .text
@ Print the text at r0. Changes r0 to r2.
print:  constant r1, UART
1:      ldr     r2, [r1, #0x18]
        tst     r2, #0x20               @ the transmitter is full
        bne     1b
        ldrb    r2, [r0], #1
        cmp     r2, #0
        bxeq    lr
        str     r2, [r1]
        b       1b

@ Print r0 in decimal. Changes r0 to r3, r12.
print_number:
        constant r1, buffer+31
        mov     r2, #0
        strb    r2, [r1]
        mov     r2, #10
1:      udiv    r3, r0, r2
        mls     r12, r3, r2, r0
        add     r12, r12, #'0'
        strb    r12, [r1, #-1]!
        movs    r0, r3
        bne     1b
        mov     r0, r1
        b       print

@ ---- memory ----

        .macro  expect value, register
        ldr     r12, =\value
        cmp     r12, \register
        bne     memory_failed
        .endm

        global self_test_memory
        constant r0, buffer
        @ Bytes in, one by one.
        mov     r1, r0
        mov     r2, #0x81
        constant r3, 0x81+8*0x11
1:      strb    r2, [r1], #1
        add     r2, r2, #0x11
        cmp     r2, r3
        bne     1b
        @ What is wider, out: without and with sign, aligned and not.
        ldrb    r1, [r0]
        expect  0x81, r1
        ldrsb   r1, [r0]
        expect  0x81-0x100, r1
        ldrh    r1, [r0]
        expect  HALF, r1
        ldrsh   r1, [r0]
        expect  HALF-0x10000, r1
        ldr     r1, [r0]
        expect  WORD, r1
        ldr     r1, [r0, #1]
        expect  UNALIGNED, r1
        ldrd    r2, r3, [r0]
        expect  WORD, r2
        expect  DOUBLE>>32, r3
        @ What is wider, in; bytes out.
        constant r1, 0x1234
        strh    r1, [r0, #8]
        constant r1, 0x56789abc
        str     r1, [r0, #10]           @ not aligned
        ldrb    r1, [r0, #8]
        expect  0x34, r1
        ldrb    r1, [r0, #9]
        expect  0x12, r1
        ldrb    r1, [r0, #10]
        expect  0xbc, r1
        ldrb    r1, [r0, #13]
        expect  0x56, r1
        @ Several registers at once; a load with a conditional store.
        add     r0, r0, #16
        stm     r0, {r2, r3}
        ldrb    r1, [r0]
        expect  0x81, r1
        ldrb    r1, [r0, #7]
        expect  0xf8, r1
1:      ldrex   r1, [r0]
        add     r1, r1, #1
        strex   r2, r1, [r0]
        cmp     r2, #0
        bne     1b
        ldm     r0, {r1, r2}
        expect  WORD+1, r1
        expect  DOUBLE>>32, r2
        constant r0, text_memory
        b       print
memory_failed:
        constant r0, text_fail_memory
        b       fail
        .ltorg

@ ---- branches ----

        @ r4 is the checksum, r5 the round.
        global self_test_branches
        push    {r4-r8, lr}
        constant r4, SEED
        mov     r5, #1
        constant r6, functions
        constant r7, ABOVE
        constant r8, BELOW
1:      tst     r5, #1
        beq     2f
        add     r4, r4, r5
        b       3f
2:      eor     r4, r4, r5
3:      and     r0, r5, #3
        ldr     r0, [r6, r0, lsl #2]
        blx     r0
        cmp     r4, r7
        bllo    mix
        cmp     r4, r8
        bge     4f
        eor     r4, r4, #0x55
4:      add     r5, r5, #1
        cmp     r5, #ROUNDS
        bls     1b
        constant r0, CHECKSUM
        cmp     r0, r4
        pop     {r4-r8, lr}
        bne     5f
        constant r0, text_branches
        b       print
5:      constant r0, text_fail_branches
        b       fail

mix:    constant r0, MIX
        add     r4, r4, r0
        bx      lr
function_0:
        add     r4, r4, r4, lsl #5
        bx      lr
function_1:
        mvn     r4, r4
        bx      lr
function_2:
        sub     r4, r4, #7
        bx      lr
function_3:
        eor     r4, r4, r4, lsr #3
        bx      lr
        .ltorg

        .section .rodata
        .balign 4
functions:
        .word   function_0, function_1, function_2, function_3
        .bss
        .balign 16384
level_1:
        .skip   16384
level_2:
        .skip   1024
        .text

@ ---- traps ----

        .balign 32
vectors:
        b       bad_entry               @ reset: does not come here
        b       bad_entry
        b       call_entry
        b       bad_entry
        b       bad_entry
        b       bad_entry
        b       interrupt_entry
        b       bad_entry

bad_entry:
        cps     #SVC
trap_failed:
        constant r0, text_fail_trap
        b       fail

call_entry:
        srsdb   sp!, #SVC
        push    {r2-r4}
        mov     r4, #0
        b       trap_entry

        @ Interrupts have a mode and a stack of their own, which are left at once.
interrupt_entry:
        sub     lr, lr, #4
        srsdb   sp!, #SVC
        cps     #SVC
        push    {r2-r4}
        mov     r4, #1
        b       trap_entry

@ On the stack: r2, r3, r4, where to return to, the saved status.
        global trap_entry
        cmp     r4, #0
        beq     call_trap

        constant r2, GIC_CPU
        ldr     r3, [r2, #0xc]          @ acknowledge
        cmp     r3, #TIMER_INTERRUPT
        bne     trap_failed
        constant r3, counter
        ldr     r4, [r3]
        add     r4, r4, #1
        str     r4, [r3]
        cmp     r4, #TICKS
        bhs     1f
        mrc     p15, 0, r3, c14, c0, 0  @ CNTFRQ
        constant r4, 1000
        udiv    r3, r3, r4
        mcr     p15, 0, r3, c14, c3, 0  @ CNTV_TVAL
        b       2f
1:      mov     r3, #0                  @ enough
        mcr     p15, 0, r3, c14, c3, 1  @ CNTV_CTL
2:      isb
        mov     r3, #TIMER_INTERRUPT
        str     r3, [r2, #0x10]         @ end of interrupt
trap_exit:
        pop     {r2-r4}
        rfeia   sp!

@ ---- timer ----

        global self_test_timer
        push    {r4, lr}
        constant r0, GIC_DISTRIBUTOR
        mov     r1, #1
        str     r1, [r0]
        mov     r1, #1 << TIMER_INTERRUPT
        str     r1, [r0, #0x100]        @ unmask
        constant r0, GIC_CPU
        mov     r1, #0xff               @ any priority
        str     r1, [r0, #4]
        mov     r1, #1
        str     r1, [r0]
        mrc     p15, 0, r0, c14, c0, 0  @ CNTFRQ
        constant r1, 1000
        udiv    r0, r0, r1
        mcr     p15, 0, r0, c14, c3, 0  @ CNTV_TVAL
        mov     r1, #1
        mcr     p15, 0, r1, c14, c3, 1  @ CNTV_CTL
        constant r4, counter
        @ wfi also ends for an interrupt that is not let through, so none is
        @ missed between the comparison and it.
1:      cpsid   i
        ldr     r0, [r4]
        cmp     r0, #TICKS
        bhs     2f
        wfi
        cpsie   i
        b       1b
2:      constant r0, text_timer
        bl      print
        ldr     r0, [r4]
        bl      print_number
        constant r0, text_ok
        pop     {r4, lr}
        b       print

@ ---- user mode ----

        global self_test_user
        push    {r4, lr}
        constant r0, kernel_sp
        str     sp, [r0]
        cps     #SYS                    @ has the stack pointer of USR
        constant sp, user_stack_top
        cps     #SVC
        constant r0, user_entry
        mov     r1, #USR                @ interrupts on
        push    {r0, r1}
        rfeia   sp!

@ A system call: r7 is the number, r0 the argument and the result.
call_trap:
        ldr     r2, [sp, #16]           @ where it came from: USR?
        and     r2, r2, #0x1f
        cmp     r2, #USR
        bne     user_failed
        constant r3, user_calls
        cmp     r7, #CALL_COUNT
        bne     1f
        ldr     r2, [r3]
        add     r2, r2, #1
        str     r2, [r3]
        constant r3, user_sum
        ldr     r2, [r3]
        add     r0, r0, r2
        str     r0, [r3]
        b       trap_exit
1:      cmp     r7, #CALL_EXIT
        bne     user_failed
        constant r2, CALL_SUM
        cmp     r0, r2
        bne     user_failed
        ldr     r2, [r3]
        cmp     r2, #CALLS
        bne     user_failed
        constant r0, kernel_sp
        ldr     sp, [r0]
        pop     {r4, lr}
        constant r0, text_user
        b       print
user_failed:
        constant r0, text_fail_user
        b       fail
        .ltorg

        @ In USR: r4 is the sum, r5 counts down.
        .section .user
        global user_entry
        mov     r4, #0
        mov     r5, #CALLS
1:      add     r4, r4, r5
        push    {r4}
        mov     r0, r5
        mov     r7, #CALL_COUNT
        svc     #0
        pop     {r1}
        cmp     r0, r1
        bne     2f
        subs    r5, r5, #1
        bne     1b
        mov     r0, r4
        mov     r7, #CALL_EXIT
        svc     #0
2:      mov     r0, #0                  @ the sums differ
        mov     r7, #CALL_EXIT
        svc     #0
