package authclient

import (
	"context"
	"fmt"
	"net"

	"google.golang.org/grpc/credentials"

	"github.com/nova-social/orphan-cleaner/internal/source"
)

// fileTLS is TLS by the files of a source, as gRPC wants it.
type fileTLS struct{ files *source.TLSFiles }

func (f fileTLS) ClientHandshake(ctx context.Context, authority string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return credentials.NewTLS(f.files.Current()).ClientHandshake(ctx, authority, raw)
}

func (f fileTLS) ServerHandshake(net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, fmt.Errorf("fileTLS is for clients only")
}

func (f fileTLS) Info() credentials.ProtocolInfo { return credentials.NewTLS(f.files.Current()).Info() }

// Clone returns f itself: gRPC clones to set another server name, which is
// fixed here by ServerName.
func (f fileTLS) Clone() credentials.TransportCredentials { return f }

func (f fileTLS) OverrideServerName(string) error {
	return fmt.Errorf("the server name is set by Config.ServerName")
}
