# SPDX-License-Identifier: GPL-2.0-or-later
#
# Self-test guest for i386 and x86_64: machine pc, loaded as a multiboot kernel.
#
# Ring 0 and ring 3 have flat segments. i386 runs without paging; x86_64 maps the
# first GB one to one, with pages that ring 3 may use.

        .include "common.inc"

        .set    COM1, 0x3f8
        .set    KERNEL_CODE, 0x08
        .set    KERNEL_DATA, 0x10
        .set    USER_CODE, 0x18 + 3
        .set    USER_DATA, 0x20 + 3
        .set    TSS, 0x28
        .set    TIMER_VECTOR, 0x20
        .set    CALL_VECTOR, 0x80

# Names for the registers that are 32 bits wide on i386 and 64 on x86_64.

        .if BITS == 64
        .set    A, %rax
        .set    B, %rbx
        .set    C, %rcx
        .set    D, %rdx
        .set    SI, %rsi
        .set    DI, %rdi
        .set    SP, %rsp
        .set    WIDTH, 8
        .macro  address value
        .quad   \value
        .endm
        .else
        .set    A, %eax
        .set    B, %ebx
        .set    C, %ecx
        .set    D, %edx
        .set    SI, %esi
        .set    DI, %edi
        .set    SP, %esp
        .set    WIDTH, 4
        .macro  address value
        .long   \value
        .endm
        .endif

        # The multiboot header. With the addresses in it the ELF headers are not
        # looked at, which lets QEMU load a 64-bit file.
        .section .head, "ax"
multiboot:
        .long   0x1badb002
        .long   0x00010000
        .long   -(0x1badb002 + 0x00010000)
        .long   multiboot, multiboot, load_end, bss_end, _start

        .text
        .code32
        global _start
        cld
        lgdt    gdt_pointer
        mov     $KERNEL_DATA, %eax
        mov     %eax, %ds
        mov     %eax, %es
        mov     %eax, %ss
        mov     $stack_top, %esp

        .if BITS == 64
        # Page tables: level 4 and 3 have one entry each, level 2 is 512 pages
        # of 2 MB. Present, writable, user: 7; a large page: 0x80.
        movl    $page_tables + 0x1000 + 7, page_tables
        movl    $page_tables + 0x2000 + 7, page_tables + 0x1000
        mov     $page_tables + 0x2000, %edi
        mov     $0x87, %eax
1:      mov     %eax, (%edi)
        add     $0x200000, %eax
        add     $8, %edi
        cmp     $page_tables + 0x3000, %edi
        jne     1b
        mov     $page_tables, %eax
        mov     %eax, %cr3
        mov     $0x20, %eax             # CR4.PAE
        mov     %eax, %cr4
        mov     $0xc0000080, %ecx       # EFER.LME
        rdmsr
        or      $0x100, %eax
        wrmsr
        mov     %cr0, %eax
        or      $0x80000000, %eax       # CR0.PG
        mov     %eax, %cr0
        ljmp    $KERNEL_CODE, $1f
        .code64
1:
        .else
        ljmp    $KERNEL_CODE, $1f
1:
        .endif

        call    set_up_traps
        mov     $text_banner, SI
        call    print
        call    self_test_memory
        call    self_test_branches
        call    self_test_timer
        call    self_test_user
        mov     $text_done, SI
        call    print

# ACPI's power-off: the firmware has put the PM registers at 0x600. S5 is type 0.
        global power_off
        mov     $0x604, %edx
        mov     $0x2000, %eax
        out     %ax, %dx
halt:   cli
        hlt
        jmp     halt

# SI: what has failed.
fail:   call    print
        jmp     power_off

# Print the text at SI. Changes A, D, SI.
print:
1:      mov     $COM1 + 5, %edx
2:      in      %dx, %al
        test    $0x20, %al              # the transmitter is empty
        jz      2b
        movzbl  (SI), %eax
        test    %al, %al
        jz      3f
        mov     $COM1, %edx
        out     %al, %dx
        inc     SI
        jmp     1b
3:      ret

# Print %eax in decimal. Changes A, C, D, SI, DI.
print_number:
        mov     $buffer + 31, DI
        movb    $0, (DI)
        mov     $10, %ecx
1:      xor     %edx, %edx
        div     %ecx
        add     $'0', %edx
        dec     DI
        mov     %dl, (DI)
        test    %eax, %eax
        jnz     1b
        mov     DI, SI
        jmp     print

# ---- memory ----

        .macro  expect value, register
        cmp     $\value, \register
        jne     memory_failed
        .endm

        global self_test_memory
        mov     $buffer, DI
        # Bytes in, one by one.
        mov     $0x81, %eax
1:      mov     %al, (DI)
        inc     DI
        add     $0x11, %eax
        cmp     $0x81 + 8 * 0x11, %eax
        jne     1b
        mov     $buffer, SI
        # What is wider, out: without and with sign, aligned and not.
        movzbl  (SI), %eax
        expect  0x81, %eax
        movsbl  (SI), %eax
        expect  0x81-0x100, %eax
        movzwl  (SI), %eax
        expect  HALF, %eax
        movswl  (SI), %eax
        expect  HALF-0x10000, %eax
        mov     (SI), %eax
        expect  WORD, %eax
        mov     1(SI), %eax
        expect  UNALIGNED, %eax
        .if BITS == 64
        mov     $DOUBLE, %rdx
        cmp     (SI), %rdx
        jne     memory_failed
        movslq  (SI), %rax
        expect  WORD-0x100000000, %rax
        .endif
        # What is wider, in; bytes out.
        movw    $0x1234, 8(SI)
        movl    $0x56789abc, 10(SI)     # not aligned
        movzbl  8(SI), %eax
        expect  0x34, %eax
        movzbl  9(SI), %eax
        expect  0x12, %eax
        movzbl  10(SI), %eax
        expect  0xbc, %eax
        movzbl  13(SI), %eax
        expect  0x56, %eax
        .if BITS == 64
        mov     %rdx, 17(SI)
        movzbl  17(SI), %eax
        expect  0x81, %eax
        movzbl  24(SI), %eax
        expect  0xf8, %eax
        .endif
        # A string instruction, and one that reads and writes.
        mov     $buffer + 16, DI
        mov     $8, C
        rep movsb
        expect  buffer+24, DI
        mov     $buffer + 16, DI
        mov     $1, %eax
        lock xadd %eax, (DI)
        expect  WORD, %eax
        mov     (DI), %eax
        expect  WORD+1, %eax
        mov     $text_memory, SI
        jmp     print
memory_failed:
        mov     $text_fail_memory, SI
        jmp     fail

# ---- branches ----

        # %ebx is the checksum, %ecx the round.
        global self_test_branches
        mov     $SEED, %ebx
        mov     $1, %ecx
1:      test    $1, %ecx
        jz      2f
        add     %ecx, %ebx
        jmp     3f
2:      xor     %ecx, %ebx
3:      mov     %ecx, %eax
        and     $3, %eax
        call    *functions(, A, WIDTH)
        cmp     $ABOVE, %ebx
        jae     4f
        call    mix
4:      cmp     $BELOW, %ebx
        jge     5f
        xor     $0x55, %ebx
5:      inc     %ecx
        cmp     $ROUNDS, %ecx
        jbe     1b
        cmp     $CHECKSUM, %ebx
        jne     6f
        mov     $text_branches, SI
        jmp     print
6:      mov     $text_fail_branches, SI
        jmp     fail

mix:    add     $MIX, %ebx
        ret
function_0:
        mov     %ebx, %edx
        shl     $5, %edx
        add     %edx, %ebx
        ret
function_1:
        not     %ebx
        ret
function_2:
        sub     $7, %ebx
        ret
function_3:
        mov     %ebx, %edx
        shr     $3, %edx
        xor     %edx, %ebx
        ret

        .section .rodata
        .balign 8
functions:
        address function_0
        address function_1
        address function_2
        address function_3
        .text

# ---- traps ----

# A stub for each vector pushes its number, and an error code where the CPU does
# not push one, so that trap_entry finds the same frame always.

        .set    vector, 0
        .rept   49
        .balign 16
        .if vector == 0
trap_stubs:
        .endif
        .if vector < 48
        .set    number, vector
        .else
        .set    number, CALL_VECTOR
        .endif
        .if (number != 8) && ((number < 10) || (number > 14)) && (number != 17)
        push    $0
        .endif
        push    $number
        jmp     trap_entry
        .set    vector, vector + 1
        .endr

# The frame: D, C, A, vector, error code, ip, cs, flags, ...
        global trap_entry
        push    A
        push    C
        push    D
        mov     3 * WIDTH(SP), A
        cmp     $TIMER_VECTOR, A
        je      timer_trap
        cmp     $CALL_VECTOR, A
        je      call_trap
        mov     $text_fail_trap, SI
        jmp     fail

timer_trap:
        incl    counter
        cmpl    $TICKS, counter
        jb      1f
        mov     $0xff, %al              # enough: mask all at the PIC
        out     %al, $0x21
1:      mov     $0x20, %al              # end of interrupt
        out     %al, $0x20
trap_exit:
        pop     D
        pop     C
        pop     A
        add     $2 * WIDTH, SP
        .if BITS == 64
        iretq
        .else
        iret
        .endif

set_up_traps:
        mov     $trap_stubs, A
        mov     $idt, DI
        mov     $48, C
1:      call    set_gate
        dec     C
        jnz     1b
        mov     $idt + CALL_VECTOR * 2 * WIDTH, DI
        call    set_gate
        orb     $0x60, 5 - 2 * WIDTH(DI)        # ring 3 may use this one
        lidt    idt_pointer
        # The TSS holds only the stack for traps from ring 3.
        mov     $stack_top, A
        mov     A, tss + 4
        .if BITS == 32
        movl    $KERNEL_DATA, tss + 8
        .endif
        # A descriptor has the address in pieces; the TSS is below 16 MB.
        mov     $tss, A
        or      A, gdt + TSS + 2
        movb    $0x89, gdt + TSS + 5            # present, a TSS
        mov     $TSS, %eax
        ltr     %ax
        ret

# An interrupt gate at DI to A; both are moved to the next.
set_gate:
        mov     %ax, (DI)
        movw    $KERNEL_CODE, 2(DI)
        movw    $0x8e00, 4(DI)
        mov     %eax, %edx
        shr     $16, %edx
        mov     %dx, 6(DI)
        add     $2 * WIDTH, DI
        add     $16, A
        ret

        .data
        .balign 8
        # Flat segments: base 0, limit 4 GB.
gdt:    .quad   0
        .if BITS == 64
        .quad   0x00af9b000000ffff      # KERNEL_CODE, 64 bits
        .quad   0x00cf93000000ffff
        .quad   0x00affb000000ffff      # USER_CODE, 64 bits
        .quad   0x00cff3000000ffff
        .else
        .quad   0x00cf9b000000ffff
        .quad   0x00cf93000000ffff
        .quad   0x00cffb000000ffff
        .quad   0x00cff3000000ffff
        .endif
        .quad   104 - 1, 0              # TSS; set_up_traps puts in the address
gdt_end:
gdt_pointer:
        .word   gdt_end - gdt - 1
        address gdt
idt_pointer:
        .word   256 * 2 * WIDTH - 1
        address idt

        .bss
        .balign 4096
page_tables:
        .skip   0x3000
idt:    .skip   256 * 16
tss:    .skip   104
        .text

# ---- timer ----

        .set    PIT_HZ, 1193182

        .macro  outb value, port
        mov     $\value, %al
        out     %al, $\port
        .endm

        global self_test_timer
        # The PICs: vectors from TIMER_VECTOR on, only line 0 unmasked.
        outb    0x11, 0x20
        outb    0x11, 0xa0
        outb    TIMER_VECTOR, 0x21
        outb    TIMER_VECTOR + 8, 0xa1
        outb    4, 0x21
        outb    2, 0xa1
        outb    1, 0x21
        outb    1, 0xa1
        outb    0xfe, 0x21
        outb    0xff, 0xa1
        # PIT channel 0, mode 2, 1000 Hz.
        outb    0x34, 0x43
        outb    (PIT_HZ / 1000) & 0xff, 0x40
        outb    (PIT_HZ / 1000) >> 8, 0x40
1:      cli
        cmpl    $TICKS, counter
        jae     2f
        sti                             # takes effect after the hlt
        hlt
        jmp     1b
2:      mov     $text_timer, SI
        call    print
        mov     counter, %eax
        call    print_number
        mov     $text_ok, SI
        jmp     print

# ---- user mode ----

        global self_test_user
        push    B
        mov     SP, kernel_sp
        # Traps from ring 3 use the stack below what is on it now.
        mov     SP, tss + 4
        push    $USER_DATA
        push    $user_stack_top
        push    $0x202                  # interrupts on
        push    $USER_CODE
        push    $user_entry
        mov     $USER_DATA, %eax
        mov     %eax, %ds
        mov     %eax, %es
        .if BITS == 64
        iretq
        .else
        iret
        .endif

# A system call: A is the number, C the argument, both as they were pushed.
call_trap:
        mov     6 * WIDTH(SP), A        # the saved CS: ring 3?
        and     $3, %eax
        cmp     $3, %eax
        jne     user_failed
        mov     2 * WIDTH(SP), A
        cmp     $CALL_COUNT, A
        jne     1f
        incl    user_calls
        mov     user_sum, %eax
        add     %ecx, %eax
        mov     %eax, user_sum
        mov     A, 2 * WIDTH(SP)        # popped into A
        jmp     trap_exit
1:      cmp     $CALL_EXIT, A
        jne     user_failed
        cmp     $CALL_SUM, %ecx
        jne     user_failed
        cmpl    $CALLS, user_calls
        jne     user_failed
        mov     kernel_sp, SP
        pop     B
        mov     $KERNEL_DATA, %eax
        mov     %eax, %ds
        mov     %eax, %es
        mov     $text_user, SI
        jmp     print
user_failed:
        mov     $text_fail_user, SI
        jmp     fail

# In ring 3: B is the sum, C counts down.
        .section .user
        global user_entry
        xor     %ebx, %ebx
        mov     $CALLS, %ecx
1:      add     %ecx, %ebx
        push    B
        mov     $CALL_COUNT, %eax
        int     $CALL_VECTOR
        pop     B
        cmp     %ebx, %eax
        jne     2f
        dec     %ecx
        jnz     1b
        mov     %ebx, %ecx
        mov     $CALL_EXIT, %eax
        int     $CALL_VECTOR
2:      mov     $CALL_EXIT, %eax        # the sums differ
        xor     %ecx, %ecx
        int     $CALL_VECTOR
