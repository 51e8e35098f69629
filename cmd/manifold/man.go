package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// manCommand writes what a package of the programs installs beside them. It is
// for whoever builds one, so it is not shown.
func manCommand() *cobra.Command {
	return &cobra.Command{
		Use: "man DIR", Short: "Write the man pages and the shells' completions", Args: cobra.ExactArgs(1), Hidden: true,
		Long: `Write the man pages and the shells' completions of all commands below DIR, at
their places below /usr/share: man/man1, bash-completion/completions,
zsh/vendor-completions, fish/vendor_completions.d.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := writePages(cmd.Root(), args[0]); err != nil {
				return fmt.Errorf("write man pages and completions: %w", err)
			}
			return nil
		},
	}
}

func writePages(root *cobra.Command, dir string) error {
	root.DisableAutoGenTag = true // the same programs, the same pages
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	man, err := subdir(dir, "man", "man1")
	if err != nil {
		return err
	}
	header := &doc.GenManHeader{Section: "1", Source: "Manifold " + version, Manual: "Manifold"}
	if err := doc.GenManTree(root, header, man); err != nil {
		return err
	}
	for _, c := range []struct {
		dir, name string
		write     func(string) error
	}{
		{"bash-completion/completions", "manifold", func(f string) error { return root.GenBashCompletionFileV2(f, true) }},
		{"zsh/vendor-completions", "_manifold", root.GenZshCompletionFile},
		{"fish/vendor_completions.d", "manifold.fish", func(f string) error { return root.GenFishCompletionFile(f, true) }},
	} {
		place, err := subdir(dir, c.dir)
		if err == nil {
			err = c.write(filepath.Join(place, c.name))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func subdir(parts ...string) (string, error) {
	dir := filepath.Join(parts...)
	return dir, os.MkdirAll(dir, 0o755)
}
