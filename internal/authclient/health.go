package authclient

import (
	"context"
	"fmt"

	"google.golang.org/grpc/codes"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/nova-social/orphan-cleaner/internal/source"
)

const healthMethod = "grpc.health.v1.Health/Check"

// Health checks the server as a whole by grpc.health.v1, retrying like
// [Client.Missing]. Any status but SERVING is an error, except for
// [source.HealthUnimplemented].
func (c *Client) Health(ctx context.Context) (source.HealthStatus, error) {
	response := &healthv1.HealthCheckResponse{}
	err := c.Retry(ctx, 0, func() *source.BatchError {
		return c.invoke(ctx, c.token.Current(), healthMethod, &healthv1.HealthCheckRequest{}, response, 0)
	})
	if err != nil {
		if status.Code(err.Err) == codes.Unimplemented && !err.Page {
			return source.HealthUnimplemented, nil
		}
		return source.HealthUnknown, fmt.Errorf("checking the health of auth-service at %s (%s): %w", c.endpoint.Address, err.Reason, err.Err)
	}
	switch response.GetStatus() {
	case healthv1.HealthCheckResponse_SERVING:
		return source.HealthServing, nil
	case healthv1.HealthCheckResponse_NOT_SERVING:
		return source.HealthNotServing, fmt.Errorf("auth-service at %s says that it is NOT_SERVING", c.endpoint.Address)
	default:
		return source.HealthUnknown, fmt.Errorf("auth-service at %s reports its health as %s", c.endpoint.Address, response.GetStatus())
	}
}
