package isolation

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/cgroups/v3/cgroup1"
	"golang.org/x/sys/unix"
)

// Inspection is what the host knows of a box, for people. It is read while
// the dyno goes on, so its parts may be some milliseconds apart.
type Inspection struct {
	Slot     int               `json:"slot"`
	FirstUID uint32            `json:"first_uid"` // of the host's ids that are this dyno's
	LastUID  uint32            `json:"last_uid"`
	Addr     netip.Addr        `json:"addr"`
	Gateway  netip.Addr        `json:"gateway"` // the host's end of the link
	Link     string            `json:"link"`    // the host's end, by name
	Dir      string            `json:"dir"`     // the run's directory on the host
	Cgroups  []string          `json:"cgroups"`
	Limits   map[string]string `json:"limits"` // as the kernel's files say, by name
	Init     int               `json:"init"`   // PID 1's process id on the host; 0: it has ended
	// Processes are the biggest first, at most maxShown of them.
	Processes []Process `json:"processes"`
	Mounts    []string  `json:"mounts"`    // of PID 1: "/ overlay ro,nosuid"
	Listeners []string  `json:"listeners"` // address and port of TCP listeners, as the dyno sees them
	Disk      Disk      `json:"disk"`
}

// Process is a process of a dyno. Command and Args are its own words: hostile.
type Process struct {
	PID     int    `json:"pid"`      // on the host
	DynoPID int    `json:"dyno_pid"` // in the dyno
	Command string `json:"command"`
	Args    string `json:"args"`
	State   string `json:"state"` // as proc(5) has it: "S (sleeping)"
	Threads int    `json:"threads"`
	RSS     int64  `json:"rss"`  // bytes
	Swap    int64  `json:"swap"` // bytes
	// Seccomp is "filter" where system calls are filtered, "off" where not.
	Seccomp    string `json:"seccomp"`
	NoNewPrivs bool   `json:"no_new_privs"`
	CapEff     string `json:"cap_eff"` // effective capabilities, hexadecimal
}

// Disk is a dyno's private writable layer.
type Disk struct {
	Bytes      int64 `json:"bytes"`
	BytesFree  int64 `json:"bytes_free"`
	Inodes     int64 `json:"inodes"`
	InodesFree int64 `json:"inodes_free"`
}

// Full says that the next write to the layer may fail for want of room.
func (d Disk) Full() bool {
	return d.Bytes > 0 && (d.BytesFree < 64<<10 || d.InodesFree == 0)
}

// Bounds on what is shown of a dyno.
const (
	maxShown  = 200  // processes, mounts, listeners
	maxArgs   = 4096 // bytes
	maxTables = 256 << 10
)

// Inspect looks at everything. It costs some file reads for each process.
func (b *Box) Inspect() Inspection {
	group, s := b.record.group(), b.record.Slot
	i := Inspection{
		Slot: int(s), Dir: b.Dir(), Cgroups: b.Cgroups(), Limits: b.host.cgroups.settings(group),
		Init: b.host.cgroups.initPID(group), Processes: b.Processes(), Listeners: b.Listeners(),
	}
	if s >= 0 {
		cfg := b.host.cfg
		i.FirstUID, i.LastUID = uint32(s.uid(cfg)), uint32(s.uid(cfg)+idsPerSlot-1)
		i.Addr, i.Gateway, i.Link = s.dynoAddr(cfg), s.hostAddr(cfg), s.link(cfg)
	}
	if i.Init != 0 {
		i.Mounts = mounts(i.Init)
	}
	i.Disk, _ = b.Disk()
	return i
}

// Cgroups are the run's directories that there are.
func (b *Box) Cgroups() []string {
	t, group := b.host.cgroups, b.record.group()
	var dirs []string
	for _, dir := range append([]string{t.dir(group)}, t.v1Dirs(group)...) {
		if _, err := os.Stat(dir); err == nil {
			dirs = append(dirs, dir)
		}
	}
	return dirs
}

// settings reads the limits that are set.
func (t *cgroupTree) settings(group string) map[string]string {
	app := filepath.Join(t.dir(group), "app")
	files := []string{
		filepath.Join(app, "memory.max"), filepath.Join(app, "memory.swap.max"), filepath.Join(app, "memory.oom.group"),
		filepath.Join(app, "pids.max"), filepath.Join(t.dir(group), "cpu.max"),
	}
	if memory := t.v1Memory(group); memory != "" {
		files = []string{
			filepath.Join(memory, "memory.limit_in_bytes"), filepath.Join(memory, "memory.memsw.limit_in_bytes"),
			filepath.Join(memory, "memory.kmem.tcp.limit_in_bytes"),
			filepath.Join(t.v1Dir(cgroup1.Pids, group), "pids.max"), filepath.Join(t.v1Dir(cgroup1.Cpu, group), "cpu.cfs_quota_us"),
		}
	}
	for _, w := range weights {
		if dir := t.controllerDir(w.controller, group); dir != "" {
			files = append(files, filepath.Join(dir, w.file))
		}
	}
	set := map[string]string{}
	for _, file := range files {
		if text, err := readSmall(file); err == nil {
			set[filepath.Base(file)] = strings.TrimSpace(text)
		}
	}
	return set
}

// Processes are the app's, the biggest first.
func (b *Box) Processes() []Process {
	text, err := readSmall(filepath.Join(b.host.cgroups.dir(b.record.group()), "app", "cgroup.procs"))
	if err != nil {
		return nil
	}
	var list []Process
	for word := range strings.FieldsSeq(text) {
		if pid, err := strconv.Atoi(word); err == nil && len(list) < maxShown {
			if p, ok := process(pid); ok {
				list = append(list, p)
			}
		}
	}
	slices.SortStableFunc(list, func(a, b Process) int { return cmp.Compare(b.RSS+b.Swap, a.RSS+a.Swap) })
	return list
}

// process reads proc(5); false if it has ended.
func process(pid int) (Process, bool) {
	p := Process{PID: pid, DynoPID: pid}
	dir := "/proc/" + strconv.Itoa(pid)
	text, err := readSmall(dir + "/status")
	if err != nil {
		return p, false
	}
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		number, _ := strconv.ParseInt(strings.TrimSuffix(value, " kB"), 10, 64)
		switch key {
		case "Name":
			p.Command = plain(value)
		case "State":
			p.State = value
		case "NSpid":
			if f := strings.Fields(value); len(f) > 0 {
				p.DynoPID, _ = strconv.Atoi(f[len(f)-1])
			}
		case "Threads":
			p.Threads = int(number)
		case "VmRSS":
			p.RSS = number << 10
		case "VmSwap":
			p.Swap = number << 10
		case "Seccomp":
			p.Seccomp = map[int64]string{0: "off", 1: "strict", 2: "filter"}[number]
		case "NoNewPrivs":
			p.NoNewPrivs = number == 1
		case "CapEff":
			p.CapEff = value
		}
	}
	if args, err := readSmall(dir + "/cmdline"); err == nil {
		args = strings.TrimRight(args, "\x00")
		p.Args = plain(strings.ReplaceAll(args[:min(len(args), maxArgs)], "\x00", " "))
	}
	return p, true
}

// plain makes a stranger's text fit for a terminal.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return '·'
		}
		return r
	}, strings.ToValidUTF8(s, "\uFFFD"))
}

// mounts reads what PID 1 has mounted (proc_pid_mountinfo(5)).
func mounts(pid int) []string {
	f, err := os.Open("/proc/" + strconv.Itoa(pid) + "/mountinfo")
	if err != nil {
		return nil
	}
	defer f.Close()
	var list []string
	lines := bufio.NewScanner(io.LimitReader(f, maxTables))
	for lines.Scan() && len(list) < maxShown {
		mount, fs, ok := strings.Cut(lines.Text(), " - ")
		m, t := strings.Fields(mount), strings.Fields(fs)
		if ok && len(m) >= 6 && len(t) >= 1 {
			list = append(list, plain(m[4]+" "+t[0]+" "+m[5]))
		}
	}
	return list
}

// Listeners are the TCP listeners in the dyno, "127.0.0.1:3000".
func (b *Box) Listeners() []string {
	pid := b.host.cgroups.initPID(b.record.group())
	if pid == 0 {
		return nil
	}
	var list []string
	for _, table := range []string{"tcp", "tcp6"} {
		f, err := os.Open("/proc/" + strconv.Itoa(pid) + "/net/" + table)
		if err != nil {
			continue
		}
		lines := bufio.NewScanner(io.LimitReader(f, 4<<20))
		for lines.Scan() && len(list) < maxShown {
			fields := strings.Fields(lines.Text())
			if len(fields) < 4 || fields[3] != "0A" {
				continue
			}
			if addr, ok := socketAddr(fields[1]); ok && !slices.Contains(list, addr.String()) {
				list = append(list, addr.String())
			}
		}
		f.Close()
	}
	return list
}

// socketAddr reads "0100007F:7A69": 32-bit words in host order, and a port.
func socketAddr(text string) (netip.AddrPort, bool) {
	hexAddr, hexPort, _ := strings.Cut(text, ":")
	port, err := strconv.ParseUint(hexPort, 16, 16)
	if err != nil || len(hexAddr) != 8 && len(hexAddr) != 32 {
		return netip.AddrPort{}, false
	}
	var raw []byte
	for ; hexAddr != ""; hexAddr = hexAddr[8:] {
		word, err := strconv.ParseUint(hexAddr[:8], 16, 32)
		if err != nil {
			return netip.AddrPort{}, false
		}
		raw = append(raw, byte(word), byte(word>>8), byte(word>>16), byte(word>>24)) // amd64 only
	}
	addr, ok := netip.AddrFromSlice(raw)
	return netip.AddrPortFrom(addr.Unmap(), uint16(port)), ok
}

// Disk says how full the writable layer is. Of a dyno that has ended it costs
// a mount.
func (b *Box) Disk() (d Disk, err error) {
	if pid := b.host.cgroups.initPID(b.record.group()); pid != 0 {
		// Of an overlay the kernel tells its upper layer's numbers.
		if d, err = diskAt("/proc/" + strconv.Itoa(pid) + "/root/"); err == nil {
			return d, nil
		}
	}
	mount, err := mountScratch(filepath.Join(b.Dir(), scratchName), true)
	if err != nil {
		return d, fmt.Errorf("look at the writable layer of run %s: %w", b.record.Run, err)
	}
	defer mount.Close()
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(mount.Fd()), &fs); err != nil {
		return d, fmt.Errorf("look at the writable layer of run %s: %w", b.record.Run, err)
	}
	return disk(fs), nil
}

func diskAt(path string) (Disk, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(path, &fs); err != nil {
		return Disk{}, err
	}
	if fs.Type != unix.OVERLAYFS_SUPER_MAGIC && fs.Type != unix.EXT4_SUPER_MAGIC {
		return Disk{}, errors.New("it is not mounted yet")
	}
	return disk(fs), nil
}

func disk(fs unix.Statfs_t) Disk {
	return Disk{
		Bytes: int64(fs.Blocks) * fs.Bsize, BytesFree: int64(fs.Bavail) * fs.Bsize,
		Inodes: int64(fs.Files), InodesFree: int64(fs.Ffree),
	}
}
