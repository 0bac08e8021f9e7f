package example;

import com.google.protobuf.InvalidProtocolBufferException;
import com.google.rpc.ErrorInfo;
import com.sealserve.inference.ModelInferRequest;
import io.grpc.CallCredentials;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.Status;
import io.grpc.netty.shaded.io.grpc.netty.NettyChannelBuilder;
import io.grpc.netty.shaded.io.netty.channel.EventLoopGroup;
import io.grpc.netty.shaded.io.netty.channel.epoll.EpollDomainSocketChannel;
import io.grpc.netty.shaded.io.netty.channel.epoll.EpollEventLoopGroup;
import io.grpc.netty.shaded.io.netty.channel.unix.DomainSocketAddress;
import io.grpc.protobuf.StatusProto;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.concurrent.Executor;
import java.util.concurrent.TimeUnit;
import java.util.logging.Level;
import java.util.logging.Logger;

/** The connection to an agent, at unix:PATH or 127.0.0.1:PORT, and what its errors say. */
final class Agent implements AutoCloseable {
  /** The agent's limit. gRPC's own for replies is 4 MB. */
  private static final int MAX_MESSAGE_BYTES = 64 << 20;

  /** Netty warns of an option of TCP that Unix sockets do not have. */
  private static final Logger NETTY = Logger.getLogger("io.grpc.netty.shaded.io.netty.bootstrap");

  static {
    NETTY.setLevel(Level.SEVERE);
  }

  private final EventLoopGroup threads;
  final ManagedChannel channel;

  Agent(String address) {
    NettyChannelBuilder builder;
    if (address.startsWith("unix:")) { // Linux; io.netty.channel.kqueue has the same for macOS
      threads = new EpollEventLoopGroup(1);
      builder =
          NettyChannelBuilder.forAddress(new DomainSocketAddress(address.substring("unix:".length())))
              .eventLoopGroup(threads)
              .channelType(EpollDomainSocketChannel.class);
    } else {
      threads = null;
      builder = NettyChannelBuilder.forTarget("dns:///" + address);
    }
    channel =
        builder
            .usePlaintext()
            .proxyDetector(server -> null) // plaintext stays on this machine
            .maxInboundMessageSize(MAX_MESSAGE_BYTES)
            .build();
  }

  @Override
  public void close() throws InterruptedException {
    channel.shutdownNow().awaitTermination(5, TimeUnit.SECONDS);
    if (threads != null) {
      threads.shutdownGracefully(0, 1, TimeUnit.SECONDS);
    }
  }

  /** The agent's token, sent with each call. */
  static CallCredentials token(Path file) throws IOException {
    Metadata headers = new Metadata();
    headers.put(
        Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER),
        "Bearer " + Files.readString(file).strip());
    return new CallCredentials() {
      @Override
      public void applyRequestMetadata(RequestInfo call, Executor executor, MetadataApplier applier) {
        applier.apply(headers);
      }
    };
  }

  /** Asks for all outputs of rows. */
  static ModelInferRequest request(
      String model, String id, List<ModelInferRequest.InferInputTensor> inputs) {
    return ModelInferRequest.newBuilder().setModelName(model).setId(id).addAllInputs(inputs).build();
  }

  /** The reason of a failed call, such as OUT_OF_RANGE. A program acts on it. */
  static String reason(Throwable error) {
    com.google.rpc.Status status = StatusProto.fromThrowable(error);
    if (status == null) {
      return "-";
    }
    for (com.google.protobuf.Any detail : status.getDetailsList()) {
      try {
        if (detail.is(ErrorInfo.class)) {
          return detail.unpack(ErrorInfo.class).getReason();
        }
      } catch (InvalidProtocolBufferException malformed) {
        return "-";
      }
    }
    return "-";
  }

  /** What to print of a failed call. */
  static String described(Throwable error) {
    Status status = Status.fromThrowable(error);
    return status.getCode() + " " + reason(error) + " " + status.getDescription();
  }
}
