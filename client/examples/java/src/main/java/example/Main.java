package example;

import com.sealserve.inference.GRPCInferenceServiceGrpc;
import com.sealserve.inference.GRPCInferenceServiceGrpc.GRPCInferenceServiceBlockingStub;
import com.sealserve.inference.GRPCInferenceServiceGrpc.GRPCInferenceServiceStub;
import com.sealserve.inference.ModelInferRequest;
import com.sealserve.inference.ModelInferResponse;
import com.sealserve.inference.ModelMetadataRequest;
import com.sealserve.inference.ModelMetadataResponse;
import com.sealserve.inference.ModelStreamInferResponse;
import io.grpc.Context;
import io.grpc.StatusRuntimeException;
import io.grpc.stub.StreamObserver;
import java.io.BufferedOutputStream;
import java.io.FileDescriptor;
import java.io.FileOutputStream;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.Locale;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;

/**
 * Asks an agent for predictions of a CSV file's rows, through stubs of the Open Inference Protocol.
 *
 * <pre>java -jar target/example.jar ADDRESS TOKEN_FILE COMMAND MODEL ROWS.csv</pre>
 *
 * <p>The commands batch, rows and stream print CSV: labels, scores and probabilities. The commands
 * deadline, cancel and refused fail on purpose, and print the status and the reason. The command
 * time prints how long a row and a batch took, in milliseconds. An empty TOKEN_FILE sends no token.
 */
public final class Main {
  /** Calls that the command time times. */
  private static final int CALLS = 200;

  private static final PrintStream OUT =
      new PrintStream(
          new BufferedOutputStream(new FileOutputStream(FileDescriptor.out)),
          false,
          StandardCharsets.UTF_8);

  private final GRPCInferenceServiceBlockingStub agent;
  private final GRPCInferenceServiceStub streams;
  private final ModelMetadataResponse model;
  private final Table table;

  private Main(Agent connection, String tokenFile, String model, Table table) throws Exception {
    var credentials = tokenFile.isEmpty() ? null : Agent.token(Path.of(tokenFile));
    this.agent = GRPCInferenceServiceGrpc.newBlockingStub(connection.channel).withCallCredentials(credentials);
    this.streams = GRPCInferenceServiceGrpc.newStub(connection.channel).withCallCredentials(credentials);
    this.model = agent.modelMetadata(ModelMetadataRequest.newBuilder().setName(model).build());
    this.table = table;
  }

  public static void main(String[] arguments) throws Exception {
    if (arguments.length != 5) {
      System.err.println("usage: ADDRESS TOKEN_FILE COMMAND MODEL ROWS.csv");
      System.exit(2);
    }
    try (Agent connection = new Agent(arguments[0])) {
      new Main(connection, arguments[1], arguments[3], Table.read(Path.of(arguments[4]))).run(arguments[2]);
      OUT.flush();
    } catch (StatusRuntimeException error) {
      System.err.println(Agent.described(error));
      System.exit(1);
    }
  }

  private void run(String command) throws Exception {
    switch (command) {
      case "batch" -> Table.write(OUT, infer(agent, 0, table.rows().size()), true);
      case "rows" -> {
        for (int row = 0; row < table.rows().size(); row++) {
          Table.write(OUT, infer(agent, row, row + 1), row == 0);
        }
      }
      case "stream" -> stream();
      case "deadline" ->
          infer(agent.withDeadlineAfter(1, TimeUnit.MILLISECONDS), 0, table.rows().size());
      case "cancel" -> cancel();
      case "refused" ->
          agent.modelInfer(
              request(0, 1).toBuilder()
                  .addOutputs(
                      ModelInferRequest.InferRequestedOutputTensor.newBuilder().setName("logits"))
                  .build());
      case "time" -> time();
      default -> throw new IllegalArgumentException("there is no command " + command);
    }
  }

  private ModelInferRequest request(int begin, int end) {
    return Agent.request(model.getName(), String.valueOf(begin), table.inputs(model, begin, end));
  }

  private ModelInferResponse infer(GRPCInferenceServiceBlockingStub stub, int begin, int end) {
    return stub.modelInfer(request(begin, end));
  }

  /** Sends each row as a request of one stream. Replies come in any order, each with its id. */
  private void stream() throws Exception {
    ModelInferResponse[] replies = new ModelInferResponse[table.rows().size()];
    CompletableFuture<Void> end = new CompletableFuture<>();
    StreamObserver<ModelInferRequest> requests =
        streams.modelStreamInfer(
            new StreamObserver<ModelStreamInferResponse>() {
              @Override
              public void onNext(ModelStreamInferResponse reply) {
                if (!reply.getErrorMessage().isEmpty()) {
                  end.completeExceptionally(new IllegalStateException(reply.getErrorMessage()));
                }
                replies[Integer.parseInt(reply.getInferResponse().getId())] = reply.getInferResponse();
              }

              @Override
              public void onError(Throwable error) {
                end.completeExceptionally(error);
              }

              @Override
              public void onCompleted() {
                end.complete(null);
              }
            });
    for (int row = 0; row < replies.length; row++) {
      requests.onNext(request(row, row + 1));
    }
    requests.onCompleted();
    try {
      end.get(5, TimeUnit.MINUTES);
    } catch (ExecutionException failed) {
      if (failed.getCause() instanceof StatusRuntimeException status) {
        throw status;
      }
      throw failed;
    }
    for (int row = 0; row < replies.length; row++) {
      Table.write(OUT, replies[row], row == 0);
    }
  }

  /** Ends a call that it has begun. */
  private void cancel() throws Exception {
    try (Context.CancellableContext context = Context.current().withCancellation()) {
      var timer = Executors.newSingleThreadScheduledExecutor();
      timer.schedule(() -> context.cancel(null), 2, TimeUnit.MILLISECONDS);
      timer.shutdown();
      context.call(() -> infer(agent, 0, table.rows().size()));
    }
  }

  /** Times single rows, and all rows at once. */
  private void time() {
    for (int size : new int[] {1, table.rows().size()}) {
      double[] taken = new double[Math.max(3, CALLS / size)];
      for (int call = -Math.min(CALLS, taken.length); call < taken.length; call++) {
        long begin = System.nanoTime();
        infer(agent, 0, size);
        if (call >= 0) { // the first ones connect, and are interpreted
          taken[call] = (System.nanoTime() - begin) / 1e6;
        }
      }
      Arrays.sort(taken);
      OUT.printf(Locale.ROOT, "%d %.3f%n", size, taken[taken.length / 2]);
    }
  }
}
