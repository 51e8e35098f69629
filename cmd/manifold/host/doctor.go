package host

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"manifold/agent"
	"manifold/agent/bundle"
	"manifold/agent/doctor"
	"manifold/isolation"
)

func (t *tool) doctorCommand() *cobra.Command {
	var fix bool
	cmd := &cobra.Command{
		Use: "doctor", Short: "Examine this host: what does not fit, why it matters, what to do", Args: cobra.NoArgs,
		Long: `Compare the agent's records with cgroups, mounts, links, the firewall, user ids,
loop devices and images, and look at swap, pressure, clock and disk. It changes
nothing and needs root, not the agent: it works when that is dead, too. What it
finds it looks for again after a moment, since what is only on its way is not a
fault.

With --fix it mends what it can: only what carries this instance's mark, and only
what no record and no running dyno needs. What only looks like ours is left alone.

The exit status is 0 where nothing is broken (risks may be listed), 1 where
something is, 2 where it could not be examined.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return t.doctor(cmd.Context(), fix) },
	}
	cmd.Flags().BoolVar(&fix, "fix", false, "mend what is ours")
	return cmd
}

// settle is how long what is only on its way may take.
const settle = 1500 * time.Millisecond

// diagnosis is what doctor says to programs.
type diagnosis struct {
	Findings []doctor.Finding `json:"findings"`
	Mended   []doctor.Finding `json:"mended,omitempty"`
}

func (t *tool) doctor(ctx context.Context, fix bool) error {
	cfg, err := t.config()
	if err == nil && os.Geteuid() != 0 {
		err = errors.New("only root can examine a host")
	}
	var findings []doctor.Finding
	if err == nil {
		findings, err = lasting(ctx, cfg)
	}
	if err != nil {
		fmt.Fprintln(t.errOut, "manifold:", err)
		return &Exit{2}
	}
	d := diagnosis{Findings: findings}
	if fix {
		d.Mended = t.mend(cfg.Isolation(), findings)
		if len(d.Mended) > 0 {
			if d.Findings, err = lasting(ctx, cfg); err != nil {
				return err
			}
		}
	}
	if t.json {
		err = t.print(d)
	} else {
		t.report(d)
	}
	if err == nil && doctor.Faults(d.Findings) > 0 {
		err = &Exit{1}
	}
	return err
}

// lasting examines twice, where there is something to find.
func lasting(ctx context.Context, cfg agent.Config) ([]doctor.Finding, error) {
	first := doctor.Examine(agent.Examine(ctx, cfg))
	if len(first) == 0 {
		return []doctor.Finding{}, nil
	}
	select {
	case <-time.After(settle):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return doctor.Lasting(first, doctor.Examine(agent.Examine(ctx, cfg))), nil
}

// mend does what the findings say and returns those that it could.
func (t *tool) mend(cfg isolation.Config, findings []doctor.Finding) (mended []doctor.Finding) {
	for _, f := range findings {
		if f.Mend == nil {
			continue
		}
		if err := isolation.Mend(cfg, *f.Mend); err != nil {
			fmt.Fprintf(t.errOut, "manifold: %v\n", err)
			continue
		}
		mended = append(mended, f)
	}
	return mended
}

func (t *tool) report(d diagnosis) {
	paint := func(color, text string) string { return text }
	if f, ok := t.out.(*os.File); ok && term.IsTerminal(int(f.Fd())) && os.Getenv("NO_COLOR") == "" {
		paint = func(color, text string) string { return "\x1b[" + color + "m" + text + "\x1b[0m" }
	}
	for _, f := range d.Mended {
		fmt.Fprintf(t.out, "%s  %s\n", paint("32", "mended"), f.What)
	}
	for _, f := range d.Findings {
		color := "33"
		if f.Level == doctor.Fault {
			color = "31"
		}
		fmt.Fprintf(t.out, "%s  %s\n        why: %s\n        do:  %s\n", paint(color, fmt.Sprintf("%-6s", f.Level)), f.What, f.Why, f.Do)
	}
	if len(d.Findings) == 0 {
		fmt.Fprintln(t.out, "Nothing is wrong on this host.")
	}
}

// config is the agent's, for what must work without one.
func (t *tool) config() (agent.Config, error) {
	cfg, err := agent.FromEnv()
	cfg.Run = filepath.Dir(t.socket)
	return cfg, err
}

func (t *tool) bundleCommand() *cobra.Command {
	var to string
	cmd := &cobra.Command{
		Use: "bundle", Short: "Write what a bug report needs into one file, without secrets", Args: cobra.NoArgs,
		Long: `Write what a bug report about this host needs into one tar.gz: versions, the
doctor's findings, the agent's records and what it says, the kernel's view of the
dynos, and the last lines of the platform's own logs. Config values, tokens and
keys are taken out; what apps log or write is not put in. It needs root, not the
agent.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if os.Geteuid() != 0 {
				return errors.New("only root can read what belongs into a bundle")
			}
			cfg, err := t.config()
			if err != nil {
				return err
			}
			return t.bundle(cmd.Context(), to, bundle.Config{Agent: cfg, Version: cmd.Root().Version})
		},
	}
	cmd.Flags().StringVarP(&to, "output", "o", "", "the file to write, - for standard output (default manifold-bundle-TIME.tar.gz)")
	return cmd
}

func (t *tool) bundle(ctx context.Context, to string, cfg bundle.Config) error {
	if to == "-" {
		return bundle.Write(ctx, t.out, cfg)
	}
	if to == "" {
		to = "manifold-bundle-" + time.Now().Format("20060102-150405") + ".tar.gz"
	}
	f, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("write the bundle: %w", err)
	}
	err = errors.Join(bundle.Write(ctx, f, cfg), f.Close())
	if err != nil {
		_ = os.Remove(to) // half of one helps nobody
		return fmt.Errorf("write the bundle: %w", err)
	}
	_, err = fmt.Fprintln(t.out, to)
	return err
}
