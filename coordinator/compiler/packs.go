package compiler

import (
	"archive/tar"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

//go:embed all:buildpacks
var embedded embed.FS

// order is the order in which our own buildpacks are asked whether they fit
// an app. The first hit wins, so static comes last: many apps of other kinds
// hold an index.html.
var order = []string{"ruby", "nodejs", "python", "go", "static"}

// Included lists the buildpacks that come with this binary.
func Included() []string { return slices.Clone(order) }

// MaxBuildpacks is how many buildpacks an app may name.
const MaxBuildpacks = 20

// Bounds of a buildpack taken from the coordinator's disk.
const (
	maxPackBytes = 100 << 20
	maxPackFiles = 20_000
)

// pack is one buildpack of a build: a tree we put into the build's input, or
// a URL the build fetches for itself.
type pack struct {
	label string // as the app names it
	url   string // "": tree is set
	tree  func() (fs.FS, io.Closer, error)
}

// packs returns the buildpacks the app names, or all of our own with chosen
// false: then the build asks them in order.
func (c *Compiler) packs(names []string) (packs []pack, chosen bool, err error) {
	if len(names) == 0 {
		for _, name := range order {
			packs = append(packs, own(name))
		}
		return packs, false, nil
	}
	if len(names) > MaxBuildpacks {
		return nil, false, refuse(fmt.Sprintf("The app names %d buildpacks; at most %d are allowed.", len(names), MaxBuildpacks))
	}
	for _, name := range names {
		p, err := c.pack(name)
		if err != nil {
			return nil, false, err
		}
		packs = append(packs, p)
	}
	return packs, true, nil
}

// password is what a URL may hold before its host; nobody else shall read it.
var password = regexp.MustCompile(`//[^/@]*@`)

func (c *Compiler) pack(name string) (pack, error) {
	if vendor, short, ok := strings.Cut(name, "/"); !ok || vendor == "heroku" || vendor == "manifold" {
		if !ok {
			short = name
		}
		for _, known := range order {
			if short == known {
				p := own(known)
				p.label = name
				return p, nil
			}
		}
	}
	if strings.HasPrefix(name, "/") || strings.HasPrefix(name, "file://") {
		return c.local(name)
	}
	u, err := url.Parse(name)
	scp := err != nil || u.Scheme == "" // user@host:path, which no URL parser takes
	if len(name) > 2048 || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r == 0x7f }) ||
		!scp && u.Scheme != "https" && u.Scheme != "http" && u.Scheme != "git" && u.Scheme != "ssh" ||
		scp && !strings.Contains(name, "@") || strings.HasPrefix(name, "-") {
		return pack{}, refuse(fmt.Sprintf("Buildpack %q is not known.", clip(password.ReplaceAllString(name, "//"))),
			"Name one of ours ("+strings.Join(order, ", ")+"), or a git URL, if need be with #branch at its end.")
	}
	return pack{label: name, url: name}, nil
}

// own is one of the buildpacks in this binary.
func own(name string) pack {
	return pack{label: name, tree: func() (fs.FS, io.Closer, error) {
		tree, err := fs.Sub(embedded, "buildpacks/"+name)
		return tree, nil, err
	}}
}

// local is a buildpack on the coordinator's disk. Users name the path, so it
// must lie below the directory the operator set aside, links included.
func (c *Compiler) local(name string) (pack, error) {
	rel, err := filepath.Rel(c.cfg.Buildpacks, strings.TrimPrefix(name, "file://"))
	if c.cfg.Buildpacks == "" || err != nil || !filepath.IsLocal(rel) {
		return pack{}, refuse(fmt.Sprintf("Buildpack %q is not in the directory that the coordinator takes local buildpacks from.", clip(name)),
			"Ask your operator to put it there, or name it by a git URL.")
	}
	return pack{label: name, tree: func() (fs.FS, io.Closer, error) {
		root, err := os.OpenRoot(c.cfg.Buildpacks)
		if err != nil {
			return nil, nil, fmt.Errorf("open the directory of local buildpacks: %w", err)
		}
		defer root.Close()
		sub, err := root.OpenRoot(rel)
		if err != nil {
			return nil, nil, refuse(fmt.Sprintf("Buildpack %q cannot be opened on the coordinator.", clip(name)))
		}
		return sub.FS(), sub, nil
	}}, nil
}

// addTree writes a buildpack's tree below prefix. Everything in its bin is
// executable, whatever its source says: an embedded file has no modes.
func addTree(tw *tar.Writer, prefix string, tree fs.FS) error {
	var bytes int64
	files := 0
	return fs.WalkDir(tree, ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && d.Name() == ".git":
			return fs.SkipDir
		case d.IsDir():
			return nil // tar -x makes what lies on the way to a file
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		bytes += info.Size()
		if files++; files > maxPackFiles || bytes > maxPackBytes {
			return refuse(fmt.Sprintf("The buildpack is larger than %d MB or %d files.", maxPackBytes>>20, maxPackFiles))
		}
		return addFile(tw, tree, prefix, name, info)
	})
}

func addFile(tw *tar.Writer, tree fs.FS, prefix, name string, info fs.FileInfo) error {
	h := &tar.Header{Name: path.Join(prefix, name), Mode: int64(info.Mode().Perm() | 0o600), Format: tar.FormatGNU}
	if path.Dir(name) == "bin" {
		h.Mode = 0o755
	}
	switch {
	case info.Mode().Type() == fs.ModeSymlink:
		target, err := fs.ReadLink(tree, name)
		if err != nil {
			return err
		}
		h.Typeflag, h.Linkname = tar.TypeSymlink, target
		return tw.WriteHeader(h)
	case !info.Mode().IsRegular():
		return nil
	}
	f, err := tree.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	h.Typeflag, h.Size = tar.TypeReg, info.Size()
	if err := tw.WriteHeader(h); err != nil {
		return err
	}
	if n, err := io.CopyN(tw, f, h.Size); err != nil {
		return errors.Join(fmt.Errorf("read %s: %d of %d bytes", name, n, h.Size), err)
	}
	return nil
}
