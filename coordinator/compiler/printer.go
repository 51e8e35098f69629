package compiler

import (
	"fmt"
	"io"
	"strings"
	"sync"
)

// printer writes what the pusher reads, in the form buildpacks use: steps
// behind an arrow, details below it, problems behind an exclamation mark. A
// pusher who is gone is noticed by whoever owns the connection, not here.
type printer struct {
	mu sync.Mutex
	w  io.Writer
}

// Write passes on what others print, such as a release command.
func (p *printer) Write(text []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.w.Write(text)
}

func (p *printer) line(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, _ = io.WriteString(p.w, strings.ReplaceAll(text, "\x00", "")+"\n")
}

func (p *printer) step(format string, args ...any) { p.line("-----> " + fmt.Sprintf(format, args...)) }
func (p *printer) detail(format string, args ...any) {
	p.line("       " + fmt.Sprintf(format, args...))
}

func (p *printer) problem(lines ...string) {
	for _, l := range lines {
		p.line(" !     " + l)
	}
}

// megabytes prints a size as a push shows it: 60.7M.
func megabytes(n int64) string {
	if n < 1<<20 {
		return fmt.Sprintf("%.1fK", float64(n)/(1<<10))
	}
	return fmt.Sprintf("%.1fM", float64(n)/(1<<20))
}
