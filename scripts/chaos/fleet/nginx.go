package fleet

import (
	"context"
	"net"
	"path/filepath"

	"github.com/wirepost/wirepost/scripts/load/nginx"
)

// composeNginx makes an nginx with the configuration that is shipped. It stands before
// the edges themselves, not before their proxies: what the configuration does about an
// edge that is gone begins with a port that refuses.
func (f *Fleet) composeNginx() error {
	program, err := nginx.Find()
	if err != nil {
		return err
	}
	p := f.newProcess(Nginx, 0)
	if err := addrs(&p.Addr); err != nil {
		return err
	}
	p.Public = p.Addr
	dir, at := f.folder(p), nginx.Addresses{Listen: p.Addr}
	for _, e := range f.edges {
		at.Edges = append(at.Edges, e.Addr)
	}
	if err := nginx.Render(filepath.Join(f.spec.Shipped, "nginx"), dir, at); err != nil {
		return err
	}
	if err := nginx.Check(program, dir, nginx.Single); err != nil {
		return err
	}
	p.command.bin, p.command.args = program, nginx.Args(dir, nginx.Single)
	p.probe = func(ctx context.Context) error {
		var d net.Dialer
		c, err := d.DialContext(ctx, "tcp", p.Addr)
		if err == nil {
			_ = c.Close()
		}
		return err
	}
	f.nginx = p
	return nil
}

// URLs are where clients connect: at nginx, or where there is none at each edge.
func (f *Fleet) URLs() []string {
	if f.nginx != nil {
		return []string{"ws://" + f.nginx.Public + "/ws"}
	}
	var all []string
	for _, e := range f.Edges() {
		all = append(all, "ws://"+e.Public+"/ws")
	}
	return all
}
