package isolation

import "golang.org/x/sys/unix"

const (
	nativeArch = unix.AUDIT_ARCH_X86_64
	// foreignCalls is where x32's numbers begin (__X32_SYSCALL_BIT).
	foreignCalls = 0x40000000
)
